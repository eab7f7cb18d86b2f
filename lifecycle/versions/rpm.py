"""RPM versions `[epoch:]version[-release]`, as in rpmverParse and rpmverCmp (rpm rpmio/rpmver.cc, rpmvercmp.cc)."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num, text

_EVR: Final = re.compile(r"(?:([0-9]*):)?(.*?)(?:-([^-]*))?", re.DOTALL)
_SEGMENT: Final = re.compile(r"~|\^|[0-9]+|[A-Za-z]+")  # all other characters are separators
_TILDE, _END, _CARET, _LETTERS, _DIGITS = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
_NO_RELEASE, _RELEASE = b"\x00", b"\x01"
# The release of a bound without one. rpm itself treats it as "any release", which is not an order.
LOWEST_RELEASE: Final = _NO_RELEASE
HIGHEST_RELEASE: Final = b"\xff"


def _segments_key(part: str) -> bytes:
    out = bytearray()
    for segment in _SEGMENT.findall(part):
        if segment == "~":
            out += _TILDE
        elif segment == "^":
            out += _CARET
        elif segment[0] <= "9":
            out += _DIGITS + num(segment)
        else:
            out += _LETTERS + text(segment)
    return bytes(out) + _END


def split(version: str) -> tuple[str, str, str | None]:
    """Return (epoch, version, release). A missing epoch is "0", a missing release None. Raises InvalidVersion."""
    if not version.strip() or "\x00" in version:
        raise InvalidVersion("the version is empty")
    parts = _EVR.fullmatch(version)
    assert parts is not None  # noqa: S101 -- the pattern matches every text
    return parts[1] or "0", parts[2], parts[3]


def key(version: str) -> bytes:
    """Return the key. A version without a release sorts before the same version with one, as in rpmverCmp."""
    epoch, number, release = split(version)
    tail = _NO_RELEASE if release is None else _RELEASE + _segments_key(release)
    return num(epoch) + _segments_key(number) + tail


def bound_key(version: str, *, is_last_affected: bool) -> bytes:
    """Return the key of a range bound. Without a release it is below all releases, or above them if last affected."""
    epoch, number, release = split(version)
    if release is not None:
        return key(version)
    tail = HIGHEST_RELEASE if is_last_affected else LOWEST_RELEASE
    return num(epoch) + _segments_key(number) + tail
