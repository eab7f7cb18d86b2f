"""Package URLs, ecosystems, and the order of versions in each scheme, also as sortable keys.

Keys are exact: memcmp of two keys compares their versions. So an index over keys finds the versions in a range. Only
Maven versions have no keys, because Maven's order is not transitive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from lifecycle.versions import apk, dpkg, maven, nuget, packagist, pep440, rpm, rubygems, semver
from lifecycle.versions.encoding import KEY_MAX_BYTES, NAME_MAX_BYTES, VERSION_MAX_CHARS, InvalidVersion

# Increased when an encoding or the coordinates of purls change, so that what is stored can be found and derived again.
KEY_VERSION: Final = 2
MAVEN: Final = "maven"
_KEYS: Final[dict[str, Callable[[str], bytes]]] = {
    "apk": apk.key,
    "dpkg": dpkg.key,
    "go": semver.go_key,
    "npm": semver.npm_key,
    "nuget": nuget.key,
    "packagist": packagist.key,
    "pep440": pep440.key,
    "rpm": rpm.key,
    "rubygems": rubygems.key,
    "semver": semver.semver_key,
}
SCHEMES: Final = frozenset(_KEYS) | {MAVEN}

__all__ = [
    "KEY_MAX_BYTES", "KEY_VERSION", "MAVEN", "NAME_MAX_BYTES", "SCHEMES", "InvalidVersion", "bound_key", "check",
    "compare", "current_key_version", "version_key",
]  # fmt: skip


def current_key_version() -> int:
    """Return KEY_VERSION, as the default of columns."""
    return KEY_VERSION


def _checked(scheme: object, *versions: object) -> None:
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise ValueError(f"unknown version scheme: {str(scheme)[:40]!r}")
    for version in versions:
        if not isinstance(version, str):
            raise InvalidVersion("the version is not a string")
        if len(version) > VERSION_MAX_CHARS:
            raise InvalidVersion(f"longer than {VERSION_MAX_CHARS} characters")


@lru_cache(maxsize=65536)
def _cached_key(scheme: str, version: str) -> bytes:
    return _KEYS[scheme](version)


def version_key(scheme: str, version: str) -> bytes:
    """Return the byte key of `version`. Keys of one scheme compare (memcmp) like their versions.

    Raises ValueError for an unknown scheme, for Maven (no total order), and for an invalid version.
    """
    _checked(scheme, version)
    if scheme == MAVEN:
        raise ValueError("Maven versions have no key: their order is not transitive")
    return _cached_key(scheme, version)


def bound_key(scheme: str, version: str, *, is_last_affected: bool = False) -> bytes:
    """Return the key of a range bound. Like `version_key`, but an rpm bound without a release covers all releases."""
    if scheme == "rpm":
        _checked(scheme, version)
        return rpm.bound_key(version, is_last_affected=is_last_affected)
    return version_key(scheme, version)


def check(scheme: str, version: str) -> None:
    """Raise ValueError unless `version` is valid in `scheme`."""
    _checked(scheme, version)
    if scheme == MAVEN:
        maven.check(version)
    else:
        _cached_key(scheme, version)


def compare(scheme: str, a: str, b: str) -> int:
    """Return a negative number, 0 or a positive number when `a` is before, equal to or after `b`.

    Raises ValueError for an unknown scheme, and for a version that is not a string or invalid in its scheme.
    """
    _checked(scheme, a, b)
    if scheme == MAVEN:
        return maven.compare(a, b)
    if scheme == "apk":  # keys also order versions that only older apk-tools accept
        apk.check(a)
        apk.check(b)
    left, right = _cached_key(scheme, a), _cached_key(scheme, b)
    return (left > right) - (left < right)
