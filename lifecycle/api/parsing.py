"""JSON request bodies: only text that PostgreSQL can store, at any depth, in names and in values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO, Any, Final

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

# NUL, and half of a surrogate pair: valid in JSON, but neither is text that PostgreSQL or UTF-8 can hold.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class StorableJSONParser(JSONParser):
    """Parses JSON; raises ParseError (400) also for text that cannot be stored, and for extreme nesting."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            body = super().parse(stream, media_type, parser_context)
            _check(body)
        except RecursionError:
            raise ParseError("The JSON is nested too deeply.") from None
        return body


def _check(value: Any) -> None:
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise ParseError("Null characters and unpaired surrogates are not allowed in text.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check(name)
            _check(inner)
    elif isinstance(value, list):
        for inner in value:
            _check(inner)
