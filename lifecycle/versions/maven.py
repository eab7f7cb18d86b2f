"""Maven versions, ordered as by ComparableVersion of maven-artifact 3.9.

3.8.6 orders corner cases differently: there, `9.0.0.M4` is after `9.0.0-M11`. Maven 4 differs again. It is not a total
order (apache/maven#6753: 1-alpha < 1 < 1.foo < 1-alpha), so there are no keys, only a comparison.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import zip_longest
from typing import Final

from lifecycle.versions.encoding import InvalidVersion

MAX_CHARS: Final = 256  # Maven's own limit, apache/maven#12942
_QUALIFIERS: Final = ("alpha", "beta", "milestone", "rc", "snapshot", "", "sp")
_ALIASES: Final = {"ga": "", "final": "", "release": "", "cr": "rc"}
_SHORT: Final = {"a": "alpha", "b": "beta", "m": "milestone"}  # only directly before a digit: 1a1 = 1-alpha-1
_RELEASE_RANK: Final = str(_QUALIFIERS.index(""))
_DIGITS: Final = frozenset("0123456789")

_Item = int | str | list["_Item"]


def _word(text: str, *, before_digit: bool = False) -> str:
    if before_digit:
        text = _SHORT.get(text, text)
    return _ALIASES.get(text, text)


def _rank(word: str) -> str:
    """Return the rank of a word, compared as text: unknown words sort alphabetically after the known ones."""
    return str(_QUALIFIERS.index(word)) if word in _QUALIFIERS else f"{len(_QUALIFIERS)}-{word}"


def _normalize(items: list[_Item]) -> None:
    """Remove zeros, empty words and empty lists from the end, and from before the lists at the end."""
    for index in range(len(items) - 1, -1, -1):
        if items[index] in (0, "", []):
            del items[index]
        elif not isinstance(items[index], list):
            break


@lru_cache(maxsize=4096)
def _parse(version: str) -> list[_Item]:  # noqa: PLR0912 -- follows the original
    """Return the nested items, parsed with the same states as ComparableVersion.parseVersion."""
    version = version.lower()
    root: list[_Item] = []
    current = root
    stack = [root]
    is_digit = False
    start = 0

    def nest() -> None:
        nonlocal current
        inner: list[_Item] = []
        current.append(inner)
        current = inner
        stack.append(inner)

    def add(end: int) -> None:
        part = version[start:end]
        current.append(int(part) if is_digit else _word(part))

    for index, character in enumerate(version):
        if character in ".-":
            if index == start:
                current.append(0)
            else:
                add(index)
            start = index + 1
            if character == "-":
                nest()
        elif character in _DIGITS:
            if not is_digit and index > start:
                if current:
                    nest()  # a word is always below the numbers before it: .X1 is read as -X1
                current.append(_word(version[start:index], before_digit=True))
                start = index
                nest()
            is_digit = True
        else:
            if is_digit and index > start:
                add(index)
                start = index
                nest()
            is_digit = False
    if len(version) > start:
        if not is_digit and current:
            nest()
        add(len(version))
    for items in reversed(stack):
        _normalize(items)
    return root


def _sign(left: str | int, right: str | int) -> int:
    return (left > right) - (left < right)  # type: ignore[operator]  # both have the same type in every call


def _compare_to_nothing(item: _Item) -> int:
    if isinstance(item, int):
        return 1 if item else 0
    if isinstance(item, str):
        return _sign(_rank(item), _RELEASE_RANK)
    return next((result for inner in item if (result := _compare_to_nothing(inner))), 0)


def _kind(item: _Item) -> int:
    """Return the rank between items of different types: word < list < number."""
    return 2 if isinstance(item, int) else 1 if isinstance(item, list) else 0


def _compare(left: _Item | None, right: _Item | None) -> int:
    if left is None:
        return 0 if right is None else -_compare_to_nothing(right)
    if right is None:
        return _compare_to_nothing(left)
    if isinstance(left, int) and isinstance(right, int):
        return _sign(left, right)
    if isinstance(left, str) and isinstance(right, str):
        return _sign(_rank(left), _rank(right))
    if isinstance(left, list) and isinstance(right, list):
        return next((result for pair in zip_longest(left, right) if (result := _compare(*pair))), 0)
    return _sign(_kind(left), _kind(right))


def check(version: str) -> None:
    """Raise InvalidVersion unless `version` is plausible. Maven itself accepts nearly every text."""
    if not version or len(version) > MAX_CHARS or any(c.isspace() or not c.isprintable() for c in version):
        raise InvalidVersion("not a Maven version")


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1. Raises InvalidVersion."""
    check(left)
    check(right)
    return _compare(_parse(left), _parse(right))
