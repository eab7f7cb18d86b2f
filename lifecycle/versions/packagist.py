"""Composer versions, ordered as Composer does: normalised by composer/semver, then by PHP's version_compare.

Normalising pads with zeros (`2.1` is `2.1.0.0`), spells out stabilities (`b1` is `beta1`) and drops build metadata. Of
a text that Composer cannot normalise, only the numbers are padded (php-src ext/standard/versioning.c orders the rest).
"""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num, text

# The versions that Composer prints and reads. `#` names a commit, which has no order. Spaces never occur.
_VERSION: Final = re.compile(r"[vV]?[0-9][0-9A-Za-z._+~@-]*")
_BRANCH: Final = re.compile(r"dev-[^\s#\x00]+")
# composer/semver src/VersionParser.php: what can follow the numbers, and the two forms of numbers.
_MODIFIER: Final = r"[._-]?(?:(stable|beta|b|rc|alpha|a|patch|pl|p)((?:[.-]?[0-9]+)*)?)?([.-]?dev)?"
_CLASSICAL: Final = re.compile(rf"v?([0-9]{{1,5}})(\.[0-9]+)?(\.[0-9]+)?(\.[0-9]+)?{_MODIFIER}", re.IGNORECASE)
_DATE: Final = re.compile(
    rf"v?([0-9]{{4}}(?:[.:-]?[0-9]{{2}}){{1,6}}(?:[.:-]?[0-9]{{1,3}})?){_MODIFIER}", re.IGNORECASE
)
_NUMERIC_BRANCH: Final = re.compile(
    r"v?([0-9]+)(\.(?:[0-9]+|x))?(\.(?:[0-9]+|x))?(\.(?:[0-9]+|x))?[.-]?dev", re.IGNORECASE
)
_LEADING_NUMBERS: Final = re.compile(r"^[vV]?([0-9]+(?:\.[0-9]+){0,3})(?![0-9])")
_STABILITY_FLAG: Final = re.compile(r"@(?:stable|rc|beta|alpha|dev)$", re.IGNORECASE)
_STABILITIES: Final = {"a": "alpha", "b": "beta", "p": "patch", "pl": "patch", "rc": "RC"}
_ANY: Final = "9999999"  # the number that stands for `x` in a branch
_PART: Final = re.compile(r"[0-9]+|[A-Za-z]+")
_UNKNOWN, _DEV, _ALPHA, _BETA, _RC, _END, _NUMBER, _PATCH = (bytes((rank,)) for rank in range(1, 9))
# In the order that PHP checks them: the first prefix of the word counts, case-sensitive.
_FORMS: Final = (
    ("dev", _DEV), ("a", _ALPHA), ("b", _BETA), ("RC", _RC), ("rc", _RC), ("p", _PATCH),
)  # fmt: skip


def _word_rank(word: str) -> bytes:
    return next((rank for form, rank in _FORMS if word.startswith(form)), _UNKNOWN)


def _normalised(version: str) -> str:
    """Return the version as composer/semver normalises it; if it cannot, with padded numbers."""
    text = _STABILITY_FLAG.sub("", version).partition("+")[0]
    if parts := _CLASSICAL.fullmatch(text):
        numbers = parts[1] + "".join(part or ".0" for part in parts.groups()[1:4])
        return _with_modifier(numbers, *parts.groups()[4:])
    if parts := _DATE.fullmatch(text):
        return _with_modifier(re.sub(r"\D", ".", parts[1]), *parts.groups()[1:])
    if parts := _NUMERIC_BRANCH.fullmatch(text):
        return "".join(part or ".x" for part in parts.groups()).lower().replace("x", _ANY) + "-dev"
    return _LEADING_NUMBERS.sub(lambda found: ".".join(([*found[1].split("."), "0", "0", "0"])[:4]), version, count=1)


def _with_modifier(numbers: str, stability: str | None, digits: str | None, dev: str | None) -> str:
    if stability and stability.lower() == "stable":
        return numbers
    words = (
        f"-{_STABILITIES.get(stability.lower(), stability.lower())}{(digits or '').lstrip('.-')}" if stability else ""
    )
    return f"{numbers}{words}{'-dev' if dev else ''}"


def key(version: str) -> bytes:
    """Return the key. A branch (`dev-main`) is below all numbers, and no two are equal. Raises InvalidVersion."""
    if _BRANCH.fullmatch(version):
        return b"\x00" + text(version)
    if not _VERSION.fullmatch(version):
        raise InvalidVersion("not a Composer version")
    out = bytearray()
    for part in _PART.findall(_normalised(version).lstrip("vV")):
        out += _NUMBER + num(part) if part[0] <= "9" else _word_rank(part)
    return bytes(out) + _END
