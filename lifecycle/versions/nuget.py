"""NuGet versions: up to four numbers, then case-insensitive SemVer labels (NuGet.Versioning)."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num
from lifecycle.versions.semver import prerelease_key

_LABELS: Final = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION: Final = re.compile(rf"\s*([0-9]+(?:\.[0-9]+){{0,3}})(?:-({_LABELS}))?(?:\+{_LABELS})?\s*")


def key(version: str) -> bytes:
    """Return the key. Missing numbers are zero, build metadata is ignored. Raises InvalidVersion."""
    parts = _VERSION.fullmatch(version)
    if parts is None:
        raise InvalidVersion("not a NuGet version")
    numbers = ([*parts[1].split("."), "0", "0", "0"])[:4]
    labels = parts[2].lower() if parts[2] else None
    return b"".join(map(num, numbers)) + prerelease_key(labels)
