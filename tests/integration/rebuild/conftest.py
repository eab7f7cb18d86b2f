"""Fixtures of rebuilds: a shell for real builds, a registry in memory with images, and people in browsers."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from django.db import connection

from tests.clients import browser
from tests.factories import dock
from tests.fakes.registry import answer_with
from tests.integration.rebuild.yard import Strict, Yard


@pytest.fixture(scope="session")
def shell_folder(tmp_path_factory):
    """A build context with a real shell: Debian's busybox-static, taken from its package."""
    folder = tmp_path_factory.mktemp("busybox")
    done = subprocess.run(
        ["apt-get", "download", "-q", "busybox-static"], cwd=folder, capture_output=True, text=True, check=False
    )
    packages = list(folder.glob("*.deb"))
    if done.returncode != 0 or not packages:
        pytest.skip("busybox-static cannot be downloaded here: " + done.stderr[-200:])
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(folder / "root")], check=True)
    context = folder / "context"
    context.mkdir()
    program = next(path for path in (folder / "root").rglob("busybox") if path.is_file() and os.access(path, os.X_OK))
    shutil.copy(program, context / "busybox")
    return context


@pytest.fixture
def yard(monkeypatch):
    shelf = Strict()
    shelf.depth = len(connection.savepoint_ids)
    answer_with(shelf, monkeypatch)
    dock.registry()
    dock.covered("Debian", "12")
    return Yard(shelf)


@pytest.fixture
def harbour(db):
    return dock.harbour()


@pytest.fixture
def owner(harbour):
    return browser(harbour["reader"])


@pytest.fixture
def viewer(harbour):
    """A user who sees everything of both teams and can change nothing."""
    dock.user("viewer", "viewer", of=dock.team("shop"))
    return browser(dock.user("viewer", "viewer", of=dock.team("base")))
