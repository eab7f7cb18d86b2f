"""Fixtures for tests of real builds."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


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
