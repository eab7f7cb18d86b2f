"""XML documents of strangers, read as a stream. Document types and entities are refused: they can grow without end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar
from xml.parsers import expat

from lifecycle.core.errors import Malformed


class XmlStream(ABC):
    """Calls `start`, `text` and `end` for each element; a subclass builds from them what it needs."""

    refusal: ClassVar[type[Malformed]] = Malformed  # what is raised, with line and column
    depth_max: ClassVar[int]

    def __init__(self, *, namespace_separator: str | None = None) -> None:
        self.parser = expat.ParserCreate(namespace_separator=namespace_separator)
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self.text
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.EntityDeclHandler = self._doctype
        self.parser.buffer_text = True
        self.depth = 0  # of the present element; 1 is the first one

    def parse(self, content: bytes) -> None:
        """Read the whole document. Raises `refusal`."""
        try:
            self.parser.Parse(content, True)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise self.refusal(f"Line {error.lineno}, column {error.offset + 1}: {reason}.") from None
        except (ValueError, LookupError):  # an encoding that Python does not know
            raise self.refusal("Line 1: the encoding of the document is not known. Send UTF-8.") from None

    def refuse(self, reason: str) -> Malformed:
        """Return the error for what stands at the present place."""
        line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
        return self.refusal(f"Line {line}, column {column}: {reason}")

    def _doctype(self, *_: object) -> None:
        raise self.refuse("document types and entities are not allowed.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > self.depth_max:
            raise self.refuse(f"elements are nested deeper than {self.depth_max}.")
        self.start(name, attributes)

    def _end(self, name: str) -> None:
        self.depth -= 1
        self.end(name)

    @abstractmethod
    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element. With a separator, `name` is its namespace, the separator and its name."""

    @abstractmethod
    def text(self, words: str) -> None:
        """Take text inside the present element; one text can come in several parts."""

    @abstractmethod
    def end(self, name: str) -> None:
        """Take the end of an element."""
