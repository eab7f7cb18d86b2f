"""Ruby gem versions, ordered as by Gem::Version (rubygems lib/rubygems/version.rb)."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num, text

_VERSION: Final = re.compile(r"\s*[0-9]+(?:\.[0-9a-zA-Z]+)*(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\s*")
_SEGMENT: Final = re.compile(r"[0-9]+|[a-zA-Z]+")
# A version continues with infinitely many zeros. So the segment after a run of zeros decides the order.
_TEXT, _ZEROS_TEXT, _END, _ZEROS_NUMBER, _NUMBER = (bytes((tag,)) for tag in range(1, 6))
_ZEROS_MAX: Final = 0xFFFF


def _without_trailing_zeros(segments: list[str]) -> list[str]:
    end = len(segments)
    while end and not segments[end - 1].strip("0"):
        end -= 1
    return segments[:end]


def key(version: str) -> bytes:
    """Return the key. Raises InvalidVersion when Gem::Version.correct? is false, and for the empty text."""
    if not _VERSION.fullmatch(version):
        raise InvalidVersion("not a RubyGems version")
    segments = _SEGMENT.findall(version.replace("-", ".pre."))
    cut = next((index for index, segment in enumerate(segments) if segment[0] > "9"), len(segments))
    canonical = _without_trailing_zeros(segments[:cut]) + _without_trailing_zeros(segments[cut:])
    out = bytearray()
    zeros = 0
    for segment in canonical:
        if segment[0] > "9":
            out += _ZEROS_TEXT + zeros.to_bytes(2, "big") if zeros else _TEXT
            out += text(segment)
        elif not segment.strip("0"):
            zeros += 1
            continue
        else:
            out += _ZEROS_NUMBER + (_ZEROS_MAX - zeros).to_bytes(2, "big") if zeros else _NUMBER
            out += num(segment)
        zeros = 0
    return bytes(out) + _END
