"""Building blocks of byte keys whose memcmp order is the order of what they stand for."""

from __future__ import annotations

from typing import Final

VERSION_MAX_CHARS: Final = 1024  # longer is no version anybody published; Maven and npm stop at 256
# A b-tree entry holds 2,704 bytes: a name and a key of these sizes fit beside each other. No real one comes near.
NAME_MAX_BYTES: Final = 1000
KEY_MAX_BYTES: Final = 1500
_SHORT_MAX: Final = 250  # digits that the single length byte can count; above it stands an escape
_LONG: Final = b"\xfb"


class InvalidVersion(ValueError):
    """The text is no version of its scheme."""


def num(digits: str) -> bytes:
    """Return the key of a decimal number of any size: its length without leading zeros, then its digits."""
    significant = digits.lstrip("0")
    length = len(significant)
    if length <= _SHORT_MAX:
        return bytes((length,)) + significant.encode("ascii")
    return _LONG + length.to_bytes(2, "big") + significant.encode("ascii")


def text(word: str) -> bytes:
    """Return the key of a word without NUL: a prefix sorts before what it starts."""
    return word.encode("utf-8") + b"\x00"
