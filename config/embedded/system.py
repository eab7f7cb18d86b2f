"""`make system`: list the missing Debian packages, and install them with root or sudo.

It runs with the system's Python before anything is installed, so it uses only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MINIMUM = (3, 11)
# Package -> how to detect it (a program on PATH, a file, or a library).
RUNTIME = {
    "docker-registry": "docker-registry",
    "skopeo": "skopeo",
    "buildah": "buildah",
    "crun": "crun",  # runs each RUN of a recipe inside the box of the build
    "e2fsprogs": "mkfs.ext4",  # the disk of a build
    "mmdebstrap": "mmdebstrap",
    "python3-venv": "",  # detected by an import, see has()
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
    "util-linux": "setpriv",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
}
TESTS = {
    "chromium": "chromium",
    "softhsm2": "softhsm2-util",  # a PKCS#11 token, for signing keys
    "libatomic1": "libatomic.so.1",  # for Playwright's driver
    "fonts-liberation": "/usr/share/fonts/truetype/liberation",
    "podman": "podman",  # its API socket, for the reporter of a host; 36 MB
}
# Package -> Debian's services, which would start at boot. Our registry has its own configuration and port, and tests
# start their own API socket.
SERVICES = {
    "docker-registry": ("docker-registry.service",),
    "podman": ("podman.socket", "podman.service", "podman-restart.service", "podman-auto-update.timer",
               "podman-auto-update.service"),
}  # fmt: skip


def has(proof: str) -> bool:
    """Return whether a program, a file, a library, or (for "") Python's venv with pip is installed."""
    if not proof:
        code = "import ensurepip, venv"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    if proof.startswith("/"):
        return Path(proof).exists()
    if ".so." in proof:
        try:
            ctypes.CDLL(proof)
        except OSError:
            return False
        return True
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(proof, path=path) is not None


def missing(packages: dict[str, str]) -> list[str]:
    """Return the packages that are not installed."""
    return [package for package, proof in packages.items() if not has(proof)]


def install(packages: list[str]) -> int:
    """Install packages without starting their services; returns the exit code."""
    names = " ".join(packages)
    command = f"apt-get update && apt-get install --no-install-recommends {names}"
    if shutil.which("apt-get") is None:
        print(f"gravingdock: missing: {names}. apt-get was not found. Install the same programs, then try again.")
        return 3
    if os.geteuid() == 0:
        prefix: list[str] = []
    elif (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        prefix = ["sudo", "-n"]
    else:
        print(f"gravingdock: missing Debian packages: {names}\nRun this as root, then try again:\n  {command}")
        return 3
    print(f"Installing Debian packages: {names}")
    added = [name for package in packages for name in SERVICES.get(package, ()) if not _service_exists(name)]
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    with tempfile.TemporaryDirectory() as folder:
        # invoke-rc.d starts no service when policy-rc.d exits with 101. Ours is used only if none exists, then removed.
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            draft = Path(folder, "policy-rc.d")
            draft.write_text("#!/bin/sh\nexit 101\n")
            subprocess.run([*prefix, "install", "-m", "755", str(draft), str(policy)], check=True)
        try:
            apt = [*prefix, *environment, "apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0"]
            subprocess.run([*apt, "update"], check=False, stdout=subprocess.DEVNULL)
            done = subprocess.run(
                [*apt, "install", "--no-install-recommends", *packages], check=False, stdout=subprocess.DEVNULL
            )
        finally:
            if ours:
                subprocess.run([*prefix, "rm", "-f", str(policy)], check=True)
    if done.returncode != 0:
        print(f"gravingdock: apt-get could not install {names}. Its messages are above.")
        return 1
    for name in added:
        _disable_service(name, prefix)
    return 0


def _disable_service(name: str, prefix: list[str]) -> None:
    """Disable the start of a service at boot, for any init system (a container has none)."""
    now = ["--now"] if Path("/run/systemd/system").exists() else []
    for command in (["systemctl", "disable", *now, name], ["update-rc.d", name.partition(".")[0], "disable"]):
        if has(command[0]):
            subprocess.run([*prefix, *command], capture_output=True, check=False)


def _service_exists(name: str) -> bool:
    return any(Path(folder, name).exists() for folder in ("/lib/systemd/system", "/etc/systemd/system"))


def main(arguments: list[str]) -> int:
    """Install missing packages; returns 0 on success, 1 on failure, 3 when the user must act first."""
    if sys.version_info < MINIMUM:
        version = platform.python_version()
        print(f"gravingdock: Python 3.11 or later is required, but this is {version}. Try: make PYTHON=python3.11 ...")
        return 3
    packages = {**RUNTIME, **TESTS} if "--tests" in arguments else RUNTIME
    absent = missing(packages)
    if absent and (code := install(absent)) != 0:
        return code
    if still := missing(packages):
        print(f"gravingdock: still missing after the installation: {' '.join(still)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
