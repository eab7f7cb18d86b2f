"""Split a Containerfile into its instructions, each character with its place in the file.

Follows the builder's parser (openshift/imagebuilder, as in buildah 1.28): byte order mark, `# escape=`, continuation
lines, comments inside them, and options before the arguments. Here-documents follow BuildKit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from lifecycle.core.errors import Malformed
from lifecycle.rebuild.expansion import BadWord, expand

LINE_MAX: Final = 64 * 1024 - 1  # bytes: the builder silently stops at a longer line (Go's bufio.MaxScanTokenSize)
KEYWORDS: Final = frozenset(
    {
        "add", "arg", "cmd", "copy", "entrypoint", "env", "expose", "from", "healthcheck", "label", "maintainer",
        "onbuild", "run", "shell", "stopsignal", "user", "volume", "workdir",
    }
)  # fmt: skip
_TAKES_HEREDOC: Final = frozenset({"add", "copy", "run"})
_TAKES_JSON: Final = frozenset({"add", "cmd", "copy", "entrypoint", "run", "shell", "volume"})
_SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Go's unicode.IsSpace
_LEFT_SPACE: Final = re.compile(f"[{_SPACE}]+")
_BETWEEN_WORDS: Final = re.compile(r"[\t\v\f\r ]+")
_ESCAPE: Final = re.compile(r"#[ \t]*escape[ \t]*=[ \t]*(.).*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HEREDOC: Final = re.compile(r"\d*<<(-?)([ \t]*)([^<]+)")


def refusal(line: int, problem: str) -> Malformed:
    """Return the error for a recipe that cannot be read, with the number of its line."""
    return Malformed(f"Line {line}: {problem}", line=line)


@dataclass(frozen=True, slots=True)
class Piece:
    """Text as the builder joins it from several lines, each character with its place in the file."""

    text: str
    places: tuple[int, ...]

    def __getitem__(self, part: slice) -> Self:
        return type(self)(self.text[part], self.places[part])

    def __add__(self, other: Piece) -> Piece:
        return Piece(self.text + other.text, self.places + other.places)

    def trimmed(self) -> Self:
        """Return it without white space at both ends."""
        start = match.end() if (match := _LEFT_SPACE.match(self.text)) else 0
        end = len(self.text)
        while end > start and _LEFT_SPACE.match(self.text[end - 1]):
            end -= 1
        return self[start:end]

    def split(self, times: int = 0) -> list[Self]:
        """Return the parts between white space, at most `times` + 1."""
        parts: list[Self] = []
        at = 0
        for match in _BETWEEN_WORDS.finditer(self.text):
            if times and len(parts) == times:
                break
            parts.append(self[at : match.start()])
            at = match.end()
        return [*parts, self[at:]]


@dataclass(frozen=True, slots=True)
class Option:
    """An option before the arguments, without its quotes and escapes: `--from=tools`.

    Every character has the range in the file that wrote it, and the place of the quote that it is in, or -1.
    """

    text: str
    ranges: tuple[tuple[int, int], ...]
    quotes: tuple[int, ...]
    closing: dict[int, int]  # place of an opening quote -> the place after its closing quote

    def range_of(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the range in the file of these characters, or None if a quote around more than them ends in it."""
        first, last = self.quotes[start], self.quotes[end - 1]
        begin, finish = self.ranges[start][0], self.ranges[end - 1][1]
        if first == last:
            return begin, finish
        if first >= 0:
            if start and first < self.ranges[start - 1][1]:
                return None
            begin = first
        if last >= 0:
            finish = self.closing[last]
        return begin, finish


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document of an instruction."""

    name: str
    is_expanded: bool  # COPY and ADD replace variables in it, because its name is not quoted
    drops_tabs: bool
    content: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its keyword in lower case, its options and the rest."""

    line: int  # of its keyword, from 1
    last_line: int
    keyword: str
    keyword_start: int  # place in the file
    options: tuple[Option, ...]
    rest: Piece
    is_json: bool
    heredocs: tuple[Heredoc, ...] = ()
    end: int = 0  # place in the file after its last line, without the line end

    @property
    def words(self) -> list[Piece]:
        return self.rest.split() if self.rest.text else []


@dataclass(slots=True)
class Recipe:
    """The instructions of a file in order, and the character that continues a line."""

    instructions: list[Instruction] = field(default_factory=list)
    escape: str = "\\"


def read_instructions(source: str) -> Recipe:
    """Return the instructions; raises Malformed with the number of the line.

    >>> [each.keyword for each in read_instructions("FROM a\\nRUN b").instructions]
    ['from', 'run']
    """
    return _Parser(source).read()


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = list(_lines(source))
        self._at = 0  # index of the next line
        self._takes_directives = True
        self._recipe = Recipe()
        self._set_escape("\\")

    def _set_escape(self, char: str) -> None:
        self._recipe.escape = char
        self._continues = re.compile(rf"{re.escape(char)}[ \t]*\Z")

    def read(self) -> Recipe:
        while self._at < len(self._lines):
            number = self._at + 1
            line = self._next_line()
            if match := _LEFT_SPACE.match(line.text):
                line = line[match.end() :]
            self._read_directive(line.text, number)
            if line.text.startswith("#") or not line.text:
                continue
            parts = [line]
            while (match := self._continues.search(parts[-1].text)) is not None:
                parts[-1] = parts[-1][: match.start()]
                if not self._read_continuation(parts):
                    break
            text = Piece("".join(part.text for part in parts), tuple(at for part in parts for at in part.places))
            self._recipe.instructions.append(self._instruction(number, text))
        return self._recipe

    def _next_line(self) -> Piece:
        start, text = self._lines[self._at]
        self._at += 1
        if len(text) > LINE_MAX // 4 and len(text.encode(errors="replace")) >= LINE_MAX:
            raise refusal(self._at, f"the builder reads at most {LINE_MAX - 1} bytes of a line. Divide it.")
        if _SURROGATE.search(text):
            raise refusal(self._at, "the line is not valid Unicode.")
        return Piece(text, tuple(range(start, start + len(text))))

    def _read_continuation(self, parts: list[Piece]) -> bool:
        """Add the next line that is neither empty nor a comment; return False at the end of the file."""
        while self._at < len(self._lines):
            line = self._next_line()
            self._read_directive(line.text, self._at)
            stripped = _LEFT_SPACE.sub("", line.text, count=1) if _LEFT_SPACE.match(line.text) else line.text
            if stripped and not stripped.startswith("#"):
                parts.append(line)
                return True
        return False

    def _read_directive(self, line: str, number: int) -> None:
        """Read `# escape=`, which must stand on the first line, like the builder."""
        if not self._takes_directives:
            return
        self._takes_directives = False
        if (match := _ESCAPE.fullmatch(line.lower())) is None:
            return
        if match[1] not in "\\`":
            raise refusal(number, "the escape character must be \\ or `.")
        self._set_escape(match[1])
        if self._at < len(self._lines) and _ESCAPE.fullmatch(self._lines[self._at][1].strip().lower()):
            raise refusal(number + 1, "only one escape directive is allowed.")

    def _instruction(self, number: int, text: Piece) -> Instruction:
        words = text.trimmed().split(times=1)
        keyword = words[0].text.lower()
        if keyword not in KEYWORDS:
            raise refusal(number, f"the builder does not know the instruction {words[0].text[:30]!r}.")
        options, rest = _options(words[1]) if len(words) > 1 else ((), text[:0])
        rest = rest.trimmed()
        is_json = keyword in _TAKES_JSON and _is_json(rest.text, number)
        heredocs: tuple[Heredoc, ...] = ()
        inner = keyword
        if keyword == "onbuild" and rest.text:
            inner = rest.split(times=1)[0].text.lower()
        if inner in _TAKES_HEREDOC and not is_json and "<<" in rest.text:
            heredocs = tuple(self._heredocs(number, rest.text))
        start, line = self._lines[self._at - 1]
        return Instruction(
            line=number, last_line=self._at, keyword=keyword, keyword_start=words[0].places[0], options=options,
            rest=rest, is_json=is_json, heredocs=heredocs, end=start + len(line),
        )  # fmt: skip

    def _heredocs(self, number: int, text: str) -> Iterator[Heredoc]:
        for sign in heredoc_signs(text):
            content: list[str] = []
            at = self._at
            while at < len(self._lines):
                start, line = self._lines[at]
                at += 1
                if (line.lstrip("\t") if sign.drops_tabs else line) == sign.name:
                    self._at = at
                    yield Heredoc(sign.name, sign.is_expanded, sign.drops_tabs, "".join(content))
                    break
                end = self._lines[at][0] if at < len(self._lines) else len(self._source)
                content.append(self._source[start:end])
            else:
                if sign.has_space:  # a shift in a calculation: $((1 << 4))
                    continue
                raise refusal(number, f"the here-document <<{sign.name[:40]} has no end: a line with only its name.")


def _lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield (place of its first character, text without its line end) of every line; the first without its mark."""
    at = 1 if source.startswith("\ufeff") else 0
    while at < len(source):
        end = source.find("\n", at)
        line = source[at : end if end >= 0 else len(source)]
        yield at, line.removesuffix("\r")
        at += len(line) + 1


@dataclass(frozen=True, slots=True)
class _Sign:
    name: str
    is_expanded: bool
    drops_tabs: bool
    has_space: bool


def heredoc_signs(text: str) -> Iterator[_Sign]:
    """Yield the here-documents that the arguments of an instruction announce: `<<EOF`, `<<-"EOF"`, `3<<EOF`."""
    words = shell_words(text)
    for position, word in enumerate(words):
        if "<<" not in word:
            continue
        candidate = f"{word} {words[position + 1]}" if word.endswith(("<<", "<<-")) and words[position + 1 :] else word
        if (match := _HEREDOC.fullmatch(candidate)) is None:
            continue
        written = match[3]
        try:
            name = expand(written, lambda variable: f"${variable}")
        except BadWord:
            continue
        if name:
            yield _Sign(name, not set(written) & {'"', "'"}, match[1] == "-", bool(match[2]))


def shell_words(text: str) -> list[str]:
    """Return the words of a command, with their quotes and escapes; [] if a quote is not closed."""
    words: list[str] = []
    at = start = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
        elif char in "'\"":
            end = at + 1
            while end < len(text) and text[end] != char:
                end += 2 if text[end] == "\\" and char == '"' else 1
            if end >= len(text):
                return []
            at = end + 1
        elif char.isspace():
            words.append(text[start:at])
            at += 1
            start = at
        else:
            at += 1
    return [word for word in (*words, text[start:]) if word]


def _is_json(text: str, number: int) -> bool:
    """Return whether the arguments are a JSON list; raises Malformed for one that has other values than strings."""
    if not text.startswith("["):
        return False
    try:
        values, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False  # the builder takes it for a command
    if not all(isinstance(value, str) for value in values):
        raise refusal(number, "a list in JSON form can only contain strings.")
    return True


def _options(line: Piece) -> tuple[tuple[Option, ...], Piece]:
    """Return (options at the start of the arguments, the rest)."""
    options: list[Option] = []
    at = 0
    text = line.text
    while at < len(text):
        if _LEFT_SPACE.match(text[at]):
            at += 1
            continue
        if not text.startswith("--", at):
            return tuple(options), line[at:]
        option, at = _option(line, at)
        if option.text == "--":
            return tuple(options), line[at:]
        options.append(option)
    return tuple(options), line[at:]


def _option(line: Piece, at: int) -> tuple[Option, int]:
    """Return (the option that starts at `at`, the index after it)."""
    chars: list[str] = []
    ranges: list[tuple[int, int]] = []
    quotes: list[int] = []
    closing: dict[int, int] = {}
    quote, opened = "", -1
    text, places = line.text, line.places
    while at < len(text):
        char = text[at]
        if not quote and _LEFT_SPACE.match(char):
            break
        if (char in "'\"" and not quote) or char == quote:
            if quote:
                closing[opened] = places[at] + 1
                quote, opened = "", -1
            else:
                quote, opened = char, places[at]
            at += 1
            continue
        start = places[at]
        if char == "\\":
            at += 1
            if at == len(text):
                quote = ""
                break
            char = text[at]
        chars.append(char)
        ranges.append((start, places[at] + 1))
        quotes.append(opened)
        at += 1
    if quote:
        closing[opened] = places[-1] + 1
    return Option("".join(chars), tuple(ranges), tuple(quotes), closing), at


def words_of(text: str, escape: str) -> list[str]:
    """Return the words of ARG, ENV or LABEL, still with their quotes and escapes."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if not quote and _LEFT_SPACE.match(char):
            if word:
                words.append("".join(word))
                word = []
            at += 1
            continue
        if char == escape and quote != "'":
            if at + 1 < len(text):
                word.append(text[at : at + 2])
            elif quote:
                quote = ""
            at += 2
            continue
        if not quote and char in "'\"":
            quote = char
        elif char == quote:
            quote = ""
        word.append(char)
        at += 1
    return [*words, "".join(word)] if word else words
