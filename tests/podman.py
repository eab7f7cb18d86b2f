"""A real Podman with its API socket and storage of its own. Tests that need it are skipped without the program."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Final

import pytest

IMAGE: Final = "localhost:5000/shop/web:1.0"
_READY_S: Final = 30
# Without cgroups, devices for networks and the right to raise limits, as in containers of CI. crun refuses the mixture
# of both versions of cgroups, so that it sees the second version only.
_ALONE: Final = (
    "--network=none", "--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
)  # fmt: skip
_ONE_VERSION: Final = 'mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'


class Podman:
    """Containers in `home`; `stop` ends all of them, and the service on `socket`."""

    def __init__(self, home: Path) -> None:
        if shutil.which("podman") is None:
            pytest.skip("podman is missing: `python3 config/embedded/system.py --tests` installs it")
        self.socket = home / "podman.sock"
        self._words = [
            "podman", f"--root={home / 'storage'}", f"--runroot={home / 'run'}", "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs", "--events-backend=file",
        ]  # fmt: skip
        made = subprocess.run(
            [*self._words, "import", "--change=ENV BUILT_IN=topsecret", "-", IMAGE],
            input=_root_filesystem(), capture_output=True, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"podman cannot store an image here: {made.stderr.decode()[-300:]}")
        self._service = subprocess.Popen(
            [*self._words, "system", "service", "--time=0", f"unix://{self.socket}"], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _READY_S
        while not self.socket.exists():
            assert time.monotonic() < deadline, "podman serves no socket"
            assert self._service.poll() is None, "podman does not serve"
            time.sleep(0.05)

    def ask(self, *words: str) -> str:
        """Run a command of podman; return what it prints."""
        done = subprocess.run([*self._words, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create(self, name: str, *words: str) -> str:
        """Create a container that is not started; return its id."""
        secrets = ("--env=PASSWORD=topsecret", "--label=note=topsecret")
        return self.ask("create", f"--name={name}", *_ALONE, *secrets, *words, IMAGE, "/sleep", "600", "topsecret")

    def run(self, name: str, *words: str) -> str:
        """Start a container that sleeps; return its id. Skips the test where no container can start."""
        command = [*self._words, "run", "--detach", f"--name={name}", *_ALONE, *words, IMAGE, "/sleep", "600"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and os.geteuid() == 0:
            self.remove(name)
            boxed = ["unshare", "--mount", "sh", "-c", _ONE_VERSION, "sh", *command]
            done = subprocess.run(boxed, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"podman cannot start a container here: {done.stderr[-300:]}")
        return done.stdout.strip()

    def remove(self, name: str) -> None:
        """Kill and remove a container; nothing when there is none."""
        self.ask("rm", "--force", "--ignore", "--time=0", name)

    def stop(self) -> None:
        """End all containers and the service."""
        self.ask("rm", "--force", "--all", "--time=0")
        self._service.send_signal(signal.SIGTERM)
        self._service.wait(20)


def _root_filesystem() -> bytes:
    """Return a tar with `sleep` of this machine and the libraries that it needs."""
    program = shutil.which("sleep") or ""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    libraries = re.findall(r"(/\S+) \(0x", listed)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", dereference=True) as archive:
        archive.add(program, "sleep")
        for library in libraries:
            archive.add(library, library.lstrip("/"))
    return target.getvalue()


def python_of_hosts() -> str:
    """Return the Python of the system, which has none of our packages; ours where there is none."""
    return shutil.which("python3", path="/usr/bin:/bin") or sys.executable
