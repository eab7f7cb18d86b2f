"""Python versions, as PEP 440 and the `packaging` library order them."""

from __future__ import annotations

from typing import Final

from packaging import version as packaging_version

from lifecycle.versions.encoding import InvalidVersion, num, text

_PRE_RANK: Final = {"a": b"\x01", "b": b"\x02", "rc": b"\x03"}
_ONLY_DEV, _NO_PRE, _NO_DEV = b"\x00", b"\x09", b"\x09"


def key(version: str) -> bytes:
    """Return the key. Raises InvalidVersion for versions that are not PEP 440."""
    try:
        parsed = packaging_version.Version(version)
    except packaging_version.InvalidVersion:
        raise InvalidVersion("not a PEP 440 version") from None
    release = list(parsed.release)
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    out = bytearray(num(str(parsed.epoch)))
    for number in release:
        out += b"\x02" + num(str(number))
    out += b"\x01"
    if parsed.pre is not None:
        out += _PRE_RANK[parsed.pre[0]] + num(str(parsed.pre[1]))
    else:
        out += _ONLY_DEV if parsed.post is None and parsed.dev is not None else _NO_PRE
    out += b"\x00" if parsed.post is None else b"\x01" + num(str(parsed.post))
    out += _NO_DEV if parsed.dev is None else b"\x01" + num(str(parsed.dev))
    if parsed.local is None:
        return bytes(out) + b"\x00"
    out += b"\x01"
    for part in parsed.local.split("."):
        out += b"\x02" + num(part) if part.isdigit() else b"\x01" + text(part)
    return bytes(out) + b"\x00"
