"""Composer versions, ordered as by PHP's version_compare (php-src ext/standard/versioning.c)."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num, text

# The versions that Composer prints and reads. `#` names a commit, which has no order. Spaces never occur.
_VERSION: Final = re.compile(r"[vV]?[0-9][0-9A-Za-z._+~@-]*")
_BRANCH: Final = re.compile(r"dev-[^\s#\x00]+")
_PART: Final = re.compile(r"[0-9]+|[A-Za-z]+")
_UNKNOWN, _DEV, _ALPHA, _BETA, _RC, _END, _NUMBER, _PATCH = (bytes((rank,)) for rank in range(1, 9))
# In the order that PHP checks them: the first prefix of the word counts, case-sensitive.
_FORMS: Final = (
    ("dev", _DEV), ("a", _ALPHA), ("b", _BETA), ("RC", _RC), ("rc", _RC), ("p", _PATCH),
)  # fmt: skip


def _word_rank(word: str) -> bytes:
    return next((rank for form, rank in _FORMS if word.startswith(form)), _UNKNOWN)


def key(version: str) -> bytes:
    """Return the key. A branch (`dev-main`) is below all numbers, and no two are equal. Raises InvalidVersion."""
    if _BRANCH.fullmatch(version):
        return b"\x00" + text(version)
    if not _VERSION.fullmatch(version):
        raise InvalidVersion("not a Composer version")
    out = bytearray()
    for part in _PART.findall(version.lstrip("vV")):
        out += _NUMBER + num(part) if part[0] <= "9" else _word_rank(part)
    return bytes(out) + _END
