"""A minimal Debian root file system, made with mmdebstrap from this machine's own apt sources.

The image contains the names of its suites but no host: its sources are `mirror+file:/etc/apt/mirrors/<name>.list`. A
builder that uses the image must provide that file, as ours does.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from django.conf import settings

from lifecycle.core.errors import UpstreamError
from lifecycle.rebuild.builders import namespaces, settings_files

RELEASE: Final = "bookworm"
PACKAGES: Final = ("openssl", "ca-certificates", "curl")
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Kept in the image, so that later installations are slim too. `force-unsafe-io`: an incomplete build is discarded, so
# dpkg does not need to wait for the disk.
_DPKG_OPTIONS: Final = (
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/lintian/*",
    "force-unsafe-io",
)  # fmt: skip
# Files that are different in every build and that no package needs.
_LEFT_OVER: Final = (
    "var/lib/apt/lists/*", "var/cache/apt/*", "var/log/*.log", "var/log/apt", "var/cache/ldconfig/aux-cache",
    "etc/machine-id", "etc/hostname", "etc/resolv.conf",
)  # fmt: skip


def sources(*, with_security: bool) -> str:
    """Return the deb822 sources of the image: suites by name, mirrors by a file that the image does not contain."""
    blocks = [("debian", f"{RELEASE}")]
    if with_security:
        blocks = [("debian", f"{RELEASE} {RELEASE}-updates"), ("debian-security", f"{RELEASE}-security")]
    return "\n".join(
        f"Types: deb\nURIs: mirror+file:/etc/apt/mirrors/{name}.list\nSuites: {suites}\nComponents: main\n"
        f"Signed-By: {KEYRING}\n"
        for name, suites in blocks
    )


def make_root(
    folder: Path, *, with_security: bool, log: Callable[[str], None], packages: Sequence[str] = PACKAGES
) -> None:
    """Make the root file system in `folder/rootfs.tar`, with or without the security suite.

    Raises UpstreamError when the machine has no Debian mirror of the release, or the mirror does not respond.
    """
    mirrors = settings_files.mirrors()
    if not mirrors["debian"] or (with_security and not mirrors["debian-security"]):
        raise UpstreamError(f"The apt sources of this machine have no mirror of Debian {RELEASE}. Add one, then retry.")
    lines = [f"deb [signed-by={KEYRING}] {uri} {RELEASE} main" for uri in mirrors["debian"][:1]]
    if with_security:
        lines += [f"deb [signed-by={KEYRING}] {uri} {RELEASE}-updates main" for uri in mirrors["debian"][:1]]
        lines += [f"deb [signed-by={KEYRING}] {uri} {RELEASE}-security main" for uri in mirrors["debian-security"][:1]]
    with tempfile.TemporaryDirectory(prefix="gd-base-", dir=settings.SCRATCH or None) as scratch:
        hook_folder = Path(scratch)
        (hook_folder / "gravingdock.sources").write_text(sources(with_security=with_security))
        (hook_folder / "slim").write_text("".join(f"{option}\n" for option in _DPKG_OPTIONS))
        remove = " ".join(f'"$1"/{path}' for path in _LEFT_OVER)
        command = [
            *namespaces.OWN, "mmdebstrap", "--mode=root", "--variant=apt", "--format=tar", "--quiet",
            f"--include={','.join((*packages, 'debian-archive-keyring'))}",
            *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
            '--customize-hook=rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* '
            '"$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
            f'--customize-hook=copy-in {hook_folder}/slim /etc/dpkg/dpkg.cfg.d',
            f'--customize-hook=copy-in {hook_folder}/gravingdock.sources /etc/apt/sources.list.d',
            '--customize-hook=mkdir -p "$1"/etc/apt/mirrors',
            f"--customize-hook=rm -rf {remove}",
            RELEASE, str(folder / "rootfs.tar"), *lines,
        ]  # fmt: skip
        environment = settings_files.environment() | {"TMPDIR": scratch}  # so that no files stay in /tmp after a kill
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=scratch)
    for line in done.stderr.splitlines():
        for uri in (*mirrors["debian"], *mirrors["debian-security"]):
            line = line.replace(uri, "<mirror>")  # noqa: PLW2901 -- the cleaned line
        log(line)
    if done.returncode != 0:
        raise UpstreamError("mmdebstrap failed. Read its messages in the log, and check that the mirror responds.")
