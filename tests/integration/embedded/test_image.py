"""The container image of deploy/Containerfile, built with buildah on the Python base of the demonstration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lifecycle.demo import images
from lifecycle.rebuild import base_images
from lifecycle.rebuild.builders import settings_files
from tests.services import ROOT

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mmdebstrap and buildah's chroot isolation need root here"),
]


class Buildah:
    """Buildah with its own storage, removed after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = ""

    def run(self, *words: str) -> str:
        """Run one buildah command, add its output to the log and return its stdout."""
        storage = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        done = subprocess.run(
            ["buildah", *storage, "--storage-driver", "vfs", *words],
            cwd=ROOT,
            env={**settings_files.environment(), "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.log += done.stdout + done.stderr
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def python(self, container: str, code: str) -> str:
        """Run Python code in the container, as its user."""
        return self.run("run", container, "--", "python3", "-c", code).strip()


def volumes(folder: Path) -> Sequence[str]:
    """Return volume options that give a build the package index and mirrors. None stays in the image."""
    # The embedded builder mounts its settings below /dev of the build. A plain build mounts them elsewhere.
    written = [volume.replace(settings_files.FOLDER, str(folder), 1) for volume in settings_files.write(folder)]
    mount_point = "/mnt/gravingdock"
    for name in ("pip.conf", "apt.conf"):
        if (path := folder / name).exists():
            path.write_text(path.read_text().replace(settings_files.FOLDER, mount_point))
    return [word for volume in (*written, f"{folder}:{mount_point}:ro") for word in ("--volume", volume)]


def python_base(buildah: Buildah, folder: Path, mounts: Sequence[str]) -> str:
    """Build the Python base of the demonstration, as after the upstream update, and return its name."""
    debian, python = images.DEBIAN, images.PYTHON_FIXED
    for product in (debian, python):
        context = folder / product.repository.replace("/", "-")
        context.mkdir()
        if product is debian:
            base_images.make_root(context, with_security=True, log=lambda line: None)
        for name, content in product.files.items():
            (context / name).write_bytes(content)
        text = product.containerfile.replace(f"FROM {debian.reference}", f"FROM localhost/{debian.reference}")
        (context / "Containerfile").write_text(text)
        buildah.run("build", *mounts, "-t", f"localhost/{product.reference}", str(context))
    return f"localhost/{python.reference}"


def test_image_builds_on_demo_base_and_runs_without_root(tmp_path: Path, settings: Any) -> None:
    settings.SCRATCH = str(tmp_path)
    buildah = Buildah(tmp_path / "storage")
    buildah.folder.mkdir()
    mounts = volumes(tmp_path / "settings")
    base = ("--build-arg", f"BASE={python_base(buildah, tmp_path, mounts)}")
    buildah.run("build", *base, *mounts, "-f", "deploy/Containerfile", "-t", "localhost/gravingdock", ".")

    image = json.loads(buildah.run("inspect", "--type", "image", "localhost/gravingdock"))["OCIv1"]
    assert image["config"]["User"] == "10001:10001"
    assert image["config"]["Cmd"][0] == "granian"
    assert not [line for line in image["config"]["Env"] if "SECRET" in line or "PIP_" in line]

    container = buildah.run("from", "localhost/gravingdock").strip()
    assert buildah.python(container, "import os; print(os.getuid())") == "10001"
    buildah.python(container, "import django, celery, granian, psycopg2, lifecycle.core.types")
    manifest = "import pathlib; print(pathlib.Path('var/static/staticfiles.json').stat().st_size > 1000)"
    assert buildah.python(container, manifest) == "True"
    absent = "import pathlib; print([n for n in ('.git', 'tests', 'var/env', 'docs') if pathlib.Path(n).exists()])"
    assert buildah.python(container, absent) == "[]"
