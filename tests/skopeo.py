"""Runs skopeo, the registry client that tests use as somebody else's."""

from __future__ import annotations

import subprocess
from pathlib import Path


def skopeo(*arguments: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run skopeo without TLS and with no account of this machine's."""
    return subprocess.run(
        ["skopeo", "--insecure-policy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=check,
    )
