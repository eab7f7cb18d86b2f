"""NuGet versions: up to four numbers, then SemVer's labels without regard to case (NuGet.Versioning)."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num
from lifecycle.versions.semver import prerelease_key

_LABELS: Final = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION: Final = re.compile(rf"\s*([0-9]+(?:\.[0-9]+){{0,3}})(?:-({_LABELS}))?(?:\+{_LABELS})?\s*")


def key(version: str) -> bytes:
    """Return the key; missing numbers are zero, build metadata is ignored. Raises InvalidVersion."""
    found = _VERSION.fullmatch(version)
    if found is None:
        raise InvalidVersion("not a version of NuGet")
    numbers = ([*found[1].split("."), "0", "0", "0"])[:4]
    labels = found[2].lower() if found[2] else None
    return b"".join(map(num, numbers)) + prerelease_key(labels)
