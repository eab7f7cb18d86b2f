"""Building blocks of byte keys whose memcmp order is the order of the encoded values."""

from __future__ import annotations

from typing import Final

VERSION_MAX_CHARS: Final = 1024  # no published version is longer; Maven and npm allow 256
# A b-tree entry has at most 2,704 bytes: a name and a key of these sizes fit together. Real ones are much shorter.
NAME_MAX_BYTES: Final = 1000
KEY_MAX_BYTES: Final = 1500
_SHORT_MAX: Final = 250  # digits that the single length byte can count; more need an escape byte
_LONG: Final = b"\xfb"


class InvalidVersion(ValueError):
    """The text is not a valid version in its scheme."""


def num(digits: str) -> bytes:
    """Return the key of a decimal number of any size: the number of digits without leading zeros, then the digits."""
    significant = digits.lstrip("0")
    length = len(significant)
    if length <= _SHORT_MAX:
        return bytes((length,)) + significant.encode("ascii")
    return _LONG + length.to_bytes(2, "big") + significant.encode("ascii")


def text(word: str) -> bytes:
    """Return the key of a word without NUL. A prefix sorts before longer words."""
    return word.encode("utf-8") + b"\x00"
