"""`gravingdock scan`: judge an SBOM, a folder or an image archive. The server stores nothing of it."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import gate
from lifecycle.cli.client import Api, CommandFailed

_TIMEOUT_S: Final = 900


def add_scan(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command `scan`."""
    scan = areas.add_parser(
        "scan", parents=[shared], help="exit with 3 if an SBOM, a folder or an image archive has findings"
    )
    scan.add_argument(
        "target", type=Path, metavar="SBOM|PATH", help="an SBOM; or a folder or an image archive, which needs syft here"
    )
    gate.add_limits(scan)
    scan.set_defaults(run=scan_target)


def scan_target(options: argparse.Namespace, api: Api) -> None:
    """Print what was found; raises CommandFailed with exit code 3 where it may not go on."""
    content = read_document(options.target)
    judged = api.post_document("scan/", content)
    unknown = [f"{row['count']} components: {row['reason']}" for row in judged["unknown"]]
    if not judged["package_count"] and not judged["dropped"]:
        unknown.append("no packages recognised")
    subject = {"target": str(options.target), "digest": "sha256:" + hashlib.sha256(content).hexdigest()}
    gate.judge(subject, judged["findings"], unknown, options)


def read_document(path: Path) -> bytes:
    """Return the SBOM in a file, or the one that syft makes of a folder or an archive; raises CommandFailed."""
    try:
        if not path.is_dir() and not tarfile.is_tarfile(path):
            return path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"Cannot read {path}: {error.strerror}.") from None
    return _listed_by_syft(path)


def _listed_by_syft(path: Path) -> bytes:
    syft = shutil.which("syft")
    if syft is None:
        raise CommandFailed(
            f"To list the packages of {path}, syft is needed here: https://github.com/anchore/syft. Or make the SBOM "
            "elsewhere, and run: gravingdock scan SBOM"
        )
    target = f"oci-dir:{path}" if (path / "oci-layout").is_file() else str(path)
    command = [syft, "scan", target, "--output", "cyclonedx-json", "--quiet"]
    try:
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"syft did not finish: {error}") from None
    if made.returncode != 0:
        raise CommandFailed(f"syft failed: {made.stderr.decode(errors='replace').strip()[-300:]}")
    return made.stdout
