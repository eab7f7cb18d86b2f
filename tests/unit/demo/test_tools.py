"""Missing tools, permissions and mirrors are reported before the demonstration starts."""

from __future__ import annotations

import pytest

from lifecycle.demo import building
from lifecycle.demo.telling import DemonstrationFailed
from lifecycle.rebuild.builders import box, settings_files


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with all tools, root access, mirrors and the box, which has tests of its own."""
    monkeypatch.setattr(box, "is_confined", lambda: True)
    monkeypatch.setattr(building.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(building.os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        settings_files, "mirrors", lambda: {"debian": ["http://mirror"], "debian-security": ["http://mirror"]}
    )


def test_complete_machine_passes():
    building.check_tools()


def test_missing_tool_is_named(monkeypatch):
    monkeypatch.setattr(building.shutil, "which", lambda name: None if name == "skopeo" else name)
    with pytest.raises(DemonstrationFailed, match=r"skopeo is not installed here\. Run: make system"):
        building.check_tools()


def test_user_without_root_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(building.os, "geteuid", lambda: 1000)
    with pytest.raises(DemonstrationFailed, match=r"needs root .* sudo make up"):
        building.check_tools()


@pytest.mark.parametrize("absent", ["debian", "debian-security"])
def test_missing_mirror_is_named(monkeypatch, absent):
    found = {"debian": ["http://mirror"], "debian-security": ["http://mirror"], absent: []}
    monkeypatch.setattr(settings_files, "mirrors", lambda: found)
    with pytest.raises(DemonstrationFailed, match=f"no mirror of {absent} for bookworm"):
        building.check_tools()
