"""Debian versions, ordered as by `dpkg --compare-versions` (deb-version(7), dpkg parsehelp.c and version.c)."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num

_EPOCH: Final = re.compile(r"[+]?[0-9]+")
_EPOCH_MAX: Final = 2**31 - 1  # dpkg stores it in an int
_PARTS: Final = re.compile(r"([^0-9]*)([0-9]*)")
_END: Final = b"\x02"


def _weight(octet: int) -> bytes:
    """Return the sort weight of one octet of a non-digit part: `~`, end of part, letters, then all others."""
    if octet == 0x7E:
        return b"\x01"
    if 65 <= octet <= 90 or 97 <= octet <= 122:
        return bytes((octet,))
    if octet >= 0x80:  # dpkg adds 256 to a signed char, which puts these between letters and other ASCII
        return bytes((0x7F, octet))
    return bytes((0x80 + octet,))


_WEIGHTS: Final = tuple(_weight(octet) for octet in range(256))


def _part_key(part: str) -> bytes:
    out = bytearray()
    for words, digits in _PARTS.findall(part):
        if not words and not digits:
            break
        for octet in words.encode("utf-8"):
            out += _WEIGHTS[octet]
        out += _END + num(digits)
    return bytes(out) + _END


def key(version: str) -> bytes:
    """Return the key. Raises InvalidVersion for errors of dpkg, not for its warnings."""
    trimmed = version.strip(" \t\n\v\f\r")
    if not trimmed:
        raise InvalidVersion("the version is empty")
    if any(character in " \t\n\v\f\r\x00" for character in trimmed):
        raise InvalidVersion("contains spaces or NUL")
    epoch, colon, rest = trimmed.partition(":")
    if not colon:
        epoch, rest = "0", trimmed
    elif not _EPOCH.fullmatch(epoch):
        raise InvalidVersion("the epoch is not a number")
    elif not rest:
        raise InvalidVersion("nothing follows the epoch")
    epoch = epoch.lstrip("+").lstrip("0")
    if len(epoch) > 10 or int(epoch or "0") > _EPOCH_MAX:
        raise InvalidVersion("the epoch is too big")
    upstream, hyphen, revision = rest.rpartition("-")
    if not hyphen:
        upstream, revision = rest, "0"
    elif not revision:
        raise InvalidVersion("the revision is empty")
    if not upstream:
        raise InvalidVersion("the version number is empty")
    return num(epoch) + _part_key(upstream) + _part_key(revision)
