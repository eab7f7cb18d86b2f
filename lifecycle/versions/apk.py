"""Alpine versions, ordered as in apk-tools 3 (apk-package(5); apk-tools src/version.c).

apk-tools 2 also allowed digits after a letter, and packages of its releases have such versions (`3.3.3p1-r2`). `key`
orders them as it did. `check` refuses them, as `apk version --check` of apk-tools 3.
"""

from __future__ import annotations

import re
from typing import Final

from lifecycle.versions.encoding import InvalidVersion, num, text

_SUFFIX: Final = r"_(?:alpha|beta|pre|rc|cvs|svn|git|hg|p)[0-9]*(?![a-z])"
_NUMBERS: Final = r"[0-9]+(?:\.[0-9]+)*"
_VERSION: Final = re.compile(
    rf"({_NUMBERS})((?:[a-z]{_NUMBERS})*)([a-z]?)((?:{_SUFFIX})*)(?:~([0-9a-f]+))?(?:-r([0-9]+))?"
)
_LETTER_AND_NUMBERS: Final = re.compile(rf"([a-z])({_NUMBERS})")
_SUFFIXES: Final = re.compile(r"_([a-z]+)([0-9]*)")
_PRE: Final = {"alpha": 1, "beta": 2, "pre": 3, "rc": 4}
_POST: Final = {"cvs": 5, "svn": 6, "git": 7, "hg": 8, "p": 9}
# Tags of what can follow a common prefix, lowest first.
_PRE_SUFFIX, _END, _REVISION, _HASH, _SUFFIX_NUMBER, _POST_SUFFIX, _LETTER, _DIGITS = (
    bytes((tag,)) for tag in range(1, 9)
)


def _component_key(digits: str) -> bytes:
    """Return the key of a number after the first. With a leading zero it is compared as text, as in Gentoo."""
    if digits[0] == "0":
        return b"\x01" + text(digits)
    return b"\x02" + num(digits)


def _parts(version: str) -> tuple[str, str, str, str, str | None, str | None]:
    parts = _VERSION.fullmatch(version)
    if parts is None:
        raise InvalidVersion("not digits{.digits}{letter}{_suffix}{~hash}{-r#}")
    numbers, lettered, letter, suffixes, commit, revision = parts.groups()
    return numbers, lettered, letter, suffixes, commit, revision


def check(version: str) -> None:
    """Raise InvalidVersion for exactly the versions that `apk version --check` of apk-tools 3 rejects."""
    if _parts(version)[1]:
        raise InvalidVersion("digits after a letter")


def _numbers_key(numbers: str) -> bytes:
    first, *others = numbers.split(".")
    return num(first) + b"".join(_DIGITS + _component_key(digits) for digits in others)


def key(version: str) -> bytes:
    """Return the key. Raises InvalidVersion for the versions that apk-tools 2 and 3 both reject."""
    numbers, lettered, letter, suffixes, commit, revision = _parts(version)
    out = bytearray(_numbers_key(numbers))
    for between, following in _LETTER_AND_NUMBERS.findall(lettered):
        out += _LETTER + between.encode("ascii") + _DIGITS + _numbers_key(following)
    if letter:
        out += _LETTER + letter.encode("ascii")
    for word, digits in _SUFFIXES.findall(suffixes):
        if word in _PRE:
            out += _PRE_SUFFIX + bytes((_PRE[word],))
        else:
            out += _POST_SUFFIX + bytes((_POST[word],))
        if digits:
            out += _SUFFIX_NUMBER + num(digits)
    if commit:
        out += _HASH + text(commit)
    if revision:
        out += _REVISION + num(revision)
    return bytes(out) + _END
