"""SemVer 2.0.0 and its two variants: npm's loose form and Go module versions."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num, text

_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER: Final = r"(?:[0-9]*[A-Za-z-][0-9A-Za-z-]*|0|[1-9][0-9]*)"
_PRERELEASE: Final = rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
_BUILD: Final = r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
# By semver.org, "v1.2.3" is a name for 1.2.3. Tags and records use it, so the v is ignored.
_SEMVER: Final = re.compile(rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER}){_PRERELEASE}{_BUILD}")
# golang.org/x/mod/semver: minor and patch can be missing, but then nothing else follows. OSV omits the v.
_GO: Final = re.compile(rf"v?({_NUMBER})(?:\.({_NUMBER})(?:\.({_NUMBER}){_PRERELEASE}{_BUILD})?)?")
# node-semver internal/re.js, LOOSE.
_LOOSE_IDENTIFIER: Final = r"(?:[0-9]*[A-Za-z-][0-9A-Za-z-]*|[0-9]+)"
_NPM: Final = re.compile(
    r"[v=\s]*([0-9]+)\.([0-9]+)\.([0-9]+)"
    rf"(?:-?({_LOOSE_IDENTIFIER}(?:\.{_LOOSE_IDENTIFIER})*))?{_BUILD}"
)
_NPM_MAX_CHARS: Final = 256  # node-semver internal/constants.js, also for the next one
_NPM_MAX_NUMBER: Final = 2**53 - 1


def prerelease_key(identifiers: str | None) -> bytes:
    """Return the key of dot-separated identifiers: numbers before words, fewer before more, none after all."""
    if not identifiers:
        return b"\xff"
    out = bytearray(b"\x01")
    for identifier in identifiers.split("."):
        is_number = identifier.isascii() and identifier.isdigit()
        out += b"\x01" + num(identifier) if is_number else b"\x02" + text(identifier)
    return bytes(out) + b"\x00"


def _key(parts: re.Match[str]) -> bytes:
    major, minor, patch, prerelease = parts.groups()
    return num(major) + num(minor or "0") + num(patch or "0") + prerelease_key(prerelease)


def semver_key(version: str) -> bytes:
    """Return the key of a SemVer 2.0.0 version. Raises InvalidVersion."""
    parts = _SEMVER.fullmatch(version)
    if parts is None:
        raise InvalidVersion("not a SemVer 2.0.0 version (MAJOR.MINOR.PATCH)")
    return _key(parts)


def go_key(version: str) -> bytes:
    """Return the key of a Go module version, with or without the `v`. Raises InvalidVersion."""
    parts = _GO.fullmatch(version)
    if parts is None:
        raise InvalidVersion("not a Go module version")
    return _key(parts)


def npm_key(version: str) -> bytes:
    """Return the key of a version that node-semver accepts in loose mode. Raises InvalidVersion."""
    if len(version) > _NPM_MAX_CHARS:
        raise InvalidVersion("longer than 256 characters")
    parts = _NPM.fullmatch(version.strip())
    if parts is None:
        raise InvalidVersion("not an npm version, even in loose mode")
    for digits in parts.groups()[:3]:
        if len(digits.lstrip("0")) > 16 or int(digits) > _NPM_MAX_NUMBER:
            raise InvalidVersion("a number is too large for npm")
    return _key(parts)
