"""What failed runs again alone, and only that: a broken test stays broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.again import MOST, again, failed

SOMETIMES = """
from pathlib import Path

def test_sometimes():
    seen = Path(__file__).with_name("seen")
    was_seen = seen.exists()
    seen.touch()
    assert was_seen
"""
NEVER = "def test_never():\n    assert False\n"
ALWAYS = """
from pathlib import Path

def test_always():
    with Path(__file__).with_name("ran").open("a") as ran:
        ran.write("x")
"""


@pytest.fixture(autouse=True)
def no_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of these tests are no Django project, and need no plugin, which take seconds to load."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(folder: Path, **modules: str) -> None:
    """Run these modules as `make test` does."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in modules.items():
        (folder / f"test_{name}.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly"], cwd=folder, check=False, capture_output=True
    )
    (folder / ".pytest_cache").mkdir(exist_ok=True)
    (folder / ".pytest_cache" / "exit").write_text(f"{ran.returncode}\n")


def test_one_that_passes_alone_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, sometimes=SOMETIMES, always=ALWAYS)
    assert failed(tmp_path) == ["test_sometimes.py::test_sometimes"]
    assert again(tmp_path) == 0
    assert "WARNING: failed beside other tests, passed alone: test_sometimes.py" in capfd.readouterr().err
    assert (tmp_path / "ran").read_text() == "x"


def test_one_that_fails_again_is_a_failure(tmp_path: Path) -> None:
    run(tmp_path, sometimes=SOMETIMES, never=NEVER)
    assert len(failed(tmp_path)) == 2
    assert again(tmp_path) == 1


def test_many_failures_do_not_run_again(tmp_path: Path) -> None:
    run(tmp_path, never="".join(NEVER.replace("never", f"never_{n}") for n in range(MOST + 1)))
    assert len(failed(tmp_path)) == MOST + 1
    assert again(tmp_path) == 1


def test_a_run_that_was_broken_off_does_not_run_again(tmp_path: Path) -> None:
    run(tmp_path, sometimes=SOMETIMES)
    assert len(failed(tmp_path)) == 1
    for code in ("0", "2", "3", ""):
        (tmp_path / ".pytest_cache" / "exit").write_text(code)
        assert failed(tmp_path) == []
    assert again(tmp_path) == 1
