"""Maven versions, as ComparableVersion of maven-artifact; where Maven 3.9 and 4 differ (1.0.RELEASE = 1.0), as 3.9.

This is no total order (apache/maven#6753: 1-alpha < 1 < 1.foo < 1-alpha), so there is no key, only a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Final

from lifecycle.advisories.versions.encoding import InvalidVersion

MAX_CHARS: Final = 256  # Maven's own cap, apache/maven#12942
_QUALIFIERS: Final = ("alpha", "beta", "milestone", "rc", "snapshot", "", "sp")
_RELEASES: Final = frozenset({"ga", "final", "release"})
_SHORT: Final = {"a": "alpha", "b": "beta", "m": "milestone"}  # only directly before a digit: 1a1 = 1-alpha-1
_RELEASE_RANK: Final = str(_QUALIFIERS.index(""))
_DIGITS: Final = frozenset("0123456789")


@dataclass(frozen=True, slots=True)
class _Word:
    value: str

    @property
    def rank(self) -> str:
        """Compared as text, which is how an unknown word comes to stand after the known ones, by alphabet."""
        if self.value in _QUALIFIERS:
            return str(_QUALIFIERS.index(self.value))
        return f"{len(_QUALIFIERS)}-{self.value}"


@dataclass(frozen=True, slots=True)
class _Combination:
    """A word with a number: `rc1`, `rc-1`."""

    word: _Word
    number: int


_Item = int | _Word | _Combination | list["_Item"]


def _word(value: str, *, before_digit: bool) -> _Word:
    if before_digit:
        value = _SHORT.get(value, value)
    if value in _RELEASES:  # they say "the release itself", which is no qualifier
        value = ""
    return _Word("rc" if value == "cr" else value)


def _item(text: str, *, is_digit: bool, is_combination: bool) -> _Item:
    if is_combination:
        joined = text.replace("-", "")
        start = next(index for index, character in enumerate(joined) if character in _DIGITS)
        return _Combination(_word(joined[:start], before_digit=True), int(joined[start:]))
    return int(text) if is_digit else _word(text, before_digit=False)


def _normalize(items: list[_Item]) -> None:
    """Drop what means nothing: zeros and empty words at the end, or before a word or a list that starts with one."""
    for index in range(len(items) - 1, -1, -1):
        item = items[index]
        if not (item in (0, []) or (isinstance(item, _Word) and not item.value)):
            continue
        following = items[index + 1] if index + 1 < len(items) else None
        if (
            following is None
            or isinstance(following, _Word)
            or (isinstance(following, list) and following and isinstance(following[0], _Word | _Combination))
        ):
            del items[index]


@lru_cache(maxsize=4096)
def _parse(version: str) -> list[_Item]:  # noqa: PLR0912, PLR0915 -- one state machine, kept in its original's order
    """Return the nested items; the walk is that of ComparableVersion.parseVersion, state by state."""
    version = version.lower()
    root: list[_Item] = []
    current = root
    stack = [root]
    is_digit = is_combination = False
    start = 0

    def nest() -> None:
        nonlocal current
        inner: list[_Item] = []
        current.append(inner)
        current = inner
        stack.append(inner)

    def add(end: int, *, digit: bool) -> None:
        current.append(_item(version[start:end], is_digit=digit, is_combination=is_combination))

    for index, character in enumerate(version):
        if character == ".":
            if index == start:
                current.append(0)
            else:
                add(index, digit=is_digit)
            is_combination = False
            start = index + 1
        elif character == "-":
            if index == start:
                current.append(0)
            else:
                if not is_digit and version[index + 1 : index + 2] in _DIGITS:  # X-1 is read as X1
                    is_combination = True
                    continue
                add(index, digit=is_digit)
            start = index + 1
            if current:
                nest()
            is_combination = False
        elif character in _DIGITS:
            if not is_digit and index > start:
                is_combination = True
                if current:
                    nest()
            is_digit = True
        else:
            if is_digit and index > start:
                add(index, digit=True)
                start = index
                nest()
                is_combination = False
            is_digit = False
    if len(version) > start:
        if not is_digit and current:  # 1.0.0.X1 < 1.0.0-X2: .X is read as -X
            nest()
        add(len(version), digit=is_digit)
    for items in reversed(stack):
        _normalize(items)
    return root


def _sign(left: str | int, right: str | int) -> int:
    return (left > right) - (left < right)  # type: ignore[operator]  # both of one type at every call


def _compare_to_nothing(item: _Item) -> int:
    if isinstance(item, int):
        return 1 if item else 0
    if isinstance(item, _Word):
        return _sign(item.rank, _RELEASE_RANK)
    if isinstance(item, _Combination):
        return _compare_to_nothing(item.word)
    return next((result for inner in item if (result := _compare_to_nothing(inner))), 0)


def _kind(item: _Item) -> int:
    """Rank between unlike items: word and combination < list < number."""
    return 2 if isinstance(item, int) else 1 if isinstance(item, list) else 0


def _compare_words(left: _Word | _Combination, right: _Word | _Combination) -> int:
    left_word = left if isinstance(left, _Word) else left.word
    right_word = right if isinstance(right, _Word) else right.word
    if result := _sign(left_word.rank, right_word.rank):
        return result
    left_number = left.number if isinstance(left, _Combination) else -1  # X < X1
    right_number = right.number if isinstance(right, _Combination) else -1
    return _sign(left_number, right_number)


def _compare(left: _Item | None, right: _Item | None) -> int:
    if left is None:
        return 0 if right is None else -_compare_to_nothing(right)
    if right is None:
        return _compare_to_nothing(left)
    if isinstance(left, int) and isinstance(right, int):
        return _sign(left, right)
    if isinstance(left, list) and isinstance(right, list):
        return next((result for pair in zip_longest(left, right) if (result := _compare(*pair))), 0)
    if isinstance(left, _Word | _Combination) and isinstance(right, _Word | _Combination):
        return _compare_words(left, right)
    return _sign(_kind(left), _kind(right))


def check(version: str) -> None:
    """Raise InvalidVersion unless `version` can be one; Maven itself takes nearly every text."""
    if not version or len(version) > MAX_CHARS or any(c.isspace() or not c.isprintable() for c in version):
        raise InvalidVersion("not a version of Maven")


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1; raises InvalidVersion."""
    check(left)
    check(right)
    return _compare(_parse(left), _parse(right))
