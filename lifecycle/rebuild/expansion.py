"""Expand variables and quotes in one word of a Containerfile.

Follows the builder (openshift/imagebuilder, `ProcessWord`). Where that refuses a substitution that BuildKit knows, such
as `${V-x}` or `${V#pattern}`, it follows BuildKit: the word of a base is replaced before the builder sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType
from typing import Final

VALUE_MAX: Final = 32 * 1024  # characters of one value, because values can grow with each ARG that repeats another
NESTED_MAX: Final = 50
PATTERN_MAX: Final = 256  # characters of a pattern, and of a value that it is matched with

Lookup = Callable[[str], str | None]


class BadWord(ValueError):
    """The builder refuses the word; the message says why."""


def expand(word: str, lookup: Lookup, *, keep_quotes: bool = False) -> str:
    """Return the word without quotes and escapes, its variables replaced; raises BadWord.

    `lookup` returns the value of a variable, or None when it is not set. `keep_quotes` is for the lines of a
    here-document, in which quotes have no meaning.
    """
    return _Reader(word, lookup, keep_quotes=keep_quotes).read_to_end()


class _Reader:
    def __init__(self, word: str, lookup: Lookup, *, keep_quotes: bool) -> None:
        self._word, self._lookup, self._keep_quotes = word, lookup, keep_quotes
        self._at = 0
        self._depth = 0

    def read_to_end(self) -> str:
        return self._read_until("")

    def _peek(self) -> str:
        return self._word[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _read_until(self, stop: str, *, keep_escapes: bool = False) -> str:
        """Return the text up to the character `stop`, and skip that; "" reads everything."""
        self._depth += 1
        if self._depth > NESTED_MAX:
            raise BadWord(f"substitutions are nested more than {NESTED_MAX} deep")
        result: list[str] = []
        length = 0
        while char := self._peek():
            if char == stop:
                self._at += 1
                self._depth -= 1
                return "".join(result)
            result.append(self._piece(char, keep_escapes))
            length += len(result[-1])
            if length > VALUE_MAX:
                raise BadWord(f"its value has more than {VALUE_MAX} characters")
        if stop:
            raise BadWord(f"a {stop} is missing")
        self._depth -= 1
        return "".join(result)

    def _piece(self, char: str, keep_escapes: bool) -> str:
        if char == "$":
            return self._variable()
        if char in "'\"" and not self._keep_quotes:
            return self._single_quoted() if char == "'" else self._double_quoted()
        self._at += 1
        if char != "\\":
            return char
        return (char if keep_escapes else "") + self._next()

    def _single_quoted(self) -> str:
        end = self._word.find("'", self._at + 1)
        if end < 0:
            raise BadWord("a single quote is not closed")
        text = self._word[self._at + 1 : end]
        self._at = end + 1
        return text

    def _double_quoted(self) -> str:
        self._at += 1
        result: list[str] = []
        while (char := self._peek()) != '"':
            if not char:
                raise BadWord("a double quote is not closed")
            if char == "$":
                result.append(self._variable())
                continue
            self._at += 1
            if char == "\\" and self._peek() in ('"', "$", "\\", ""):
                char = self._next()
            result.append(char)
        self._at += 1
        return "".join(result)

    def _variable(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            return (self._lookup(name) or "") if name else "$"
        self._at += 1
        name = self._name()
        return self._substituted(name, self._lookup(name))

    def _substituted(self, name: str, value: str | None) -> str:
        """Return what stands for `${name...}`, whose name was read."""
        operator = self._next()
        is_unset = value is None
        if operator == ":":
            operator = self._next()
            is_unset = not value
            if operator not in ("-", "+", "?"):
                operator = f":{operator}"
        result = value or ""
        if operator == "/":
            result = self._replaced(result)
        elif operator in ("#", "%"):
            result = _trimmed(result, self._read_until("}", keep_escapes=True), at_end=operator == "%")
        elif operator in ("-", "+", "?"):
            other = self._read_until("}")
            if operator == "?" and is_unset:
                raise BadWord(f"{name} is not set" + (f": {other[:100]}" if other else ""))
            if operator == "+":
                result = "" if is_unset else other
            elif is_unset:
                result = other
        elif operator != "}":
            raise BadWord(f"the builder does not know the substitution ${{{name}{operator}...}}")
        return result

    def _replaced(self, value: str) -> str:
        """Return the value of `${V/pattern/text}`, or with `//` for all matches."""
        is_for_all = self._peek() == "/"
        self._at += is_for_all
        pattern = _pattern(self._read_until("/", keep_escapes=True))
        text = self._read_until("}", keep_escapes=True)
        _check_length(value)
        result: list[str] = []
        at = 0
        while at <= len(value):
            ends = _match_ends(pattern, value[at:])
            if not ends:
                result.append(value[at : at + 1])
                at += 1
                continue
            result.append(text)
            size = max(ends)
            if not is_for_all:
                result.append(value[at + size :])
                break
            result.append("" if size else value[at : at + 1])
            at += size or 1
        return "".join(result)

    def _name(self) -> str:
        """Return a name of letters, digits and `_`, or one digit."""
        start = self._at
        while (char := self._peek()) and (char.isalnum() or char == "_"):
            self._at += 1
            if self._at == start + 1 and char.isdecimal():
                break
        return self._word[start : self._at]


# A pattern as its parts: a character, or None for any one character, or ... for any text.
_Part = str | EllipsisType | None


def _pattern(text: str) -> list[_Part]:
    if len(text) > PATTERN_MAX:
        raise BadWord(f"a pattern has at most {PATTERN_MAX} characters")
    parts: list[_Part] = []
    chars = iter(text)
    for char in chars:
        if char == "\\":
            parts.append(next(chars, "\\"))
        else:
            parts.append({"*": ..., "?": None}.get(char, char))
    return parts


def _match_ends(parts: list[_Part], value: str) -> list[int]:
    """Return every length of a start of `value` that the pattern matches, in a time of parts x characters."""
    lengths = {0}
    for part in parts:
        if part is ...:
            lengths = set(range(min(lengths), len(value) + 1)) if lengths else lengths
        else:
            lengths = {at + 1 for at in lengths if at < len(value) and (part is None or value[at] == part)}
    return sorted(lengths)


def _trimmed(value: str, text: str, *, at_end: bool) -> str:
    """Return the value without its shortest match at one end; a doubled operator takes the longest."""
    sign = "%" if at_end else "#"
    is_longest = text.startswith(sign)
    parts = _pattern(text[is_longest:])
    _check_length(value)
    if at_end:
        parts, value = parts[::-1], value[::-1]
    ends = _match_ends(parts, value)
    if ends:
        value = value[ends[-1] if is_longest else ends[0] :]
    return value[::-1] if at_end else value


def _check_length(value: str) -> None:
    if len(value) > PATTERN_MAX:
        raise BadWord(f"a pattern is matched with at most {PATTERN_MAX} characters")
