"""SemVer 2.0.0 and its two relatives: npm's loose form and Go's module versions."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num, text

_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER: Final = r"(?:[0-9]*[A-Za-z-][0-9A-Za-z-]*|0|[1-9][0-9]*)"
_PRERELEASE: Final = rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
_BUILD: Final = r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
# semver.org says that "v1.2.3" is a name for 1.2.3; tags and records use it, so it is taken off.
_SEMVER: Final = re.compile(rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER}){_PRERELEASE}{_BUILD}")
# golang.org/x/mod/semver: minor and patch may be missing, but then nothing else follows. OSV leaves the v out.
_GO: Final = re.compile(rf"v?({_NUMBER})(?:\.({_NUMBER})(?:\.({_NUMBER}){_PRERELEASE}{_BUILD})?)?")
# node-semver internal/re.js, LOOSE.
_LOOSE_IDENTIFIER: Final = r"(?:[0-9]*[A-Za-z-][0-9A-Za-z-]*|[0-9]+)"
_NPM: Final = re.compile(
    r"[v=\s]*([0-9]+)\.([0-9]+)\.([0-9]+)"
    rf"(?:-?({_LOOSE_IDENTIFIER}(?:\.{_LOOSE_IDENTIFIER})*))?{_BUILD}"
)
_NPM_MAX_CHARS: Final = 256  # node-semver internal/constants.js, as the next
_NPM_MAX_NUMBER: Final = 2**53 - 1


def prerelease_key(identifiers: str | None) -> bytes:
    """Return the key of dot-separated identifiers: numbers below words, fewer below more, none above all."""
    if not identifiers:
        return b"\xff"
    out = bytearray(b"\x01")
    for identifier in identifiers.split("."):
        is_number = identifier.isascii() and identifier.isdigit()
        out += b"\x01" + num(identifier) if is_number else b"\x02" + text(identifier)
    return bytes(out) + b"\x00"


def _key(found: re.Match[str]) -> bytes:
    major, minor, patch, prerelease = found.groups()
    return num(major) + num(minor or "0") + num(patch or "0") + prerelease_key(prerelease)


def semver_key(version: str) -> bytes:
    """Return the key of a SemVer 2.0.0 version; raises InvalidVersion."""
    found = _SEMVER.fullmatch(version)
    if found is None:
        raise InvalidVersion("not MAJOR.MINOR.PATCH as SemVer 2.0.0 has it")
    return _key(found)


def go_key(version: str) -> bytes:
    """Return the key of a Go module version, with or without its `v`; raises InvalidVersion."""
    found = _GO.fullmatch(version)
    if found is None:
        raise InvalidVersion("not a version of Go modules")
    return _key(found)


def npm_key(version: str) -> bytes:
    """Return the key of what node-semver takes in its loose mode; raises InvalidVersion."""
    if len(version) > _NPM_MAX_CHARS:
        raise InvalidVersion("longer than 256 characters")
    found = _NPM.fullmatch(version.strip())
    if found is None:
        raise InvalidVersion("not a version of npm, even loosely read")
    for digits in found.groups()[:3]:
        if len(digits.lstrip("0")) > 16 or int(digits) > _NPM_MAX_NUMBER:
            raise InvalidVersion("a number is too big for npm")
    return _key(found)
