"""Cells of CSV files that people open in a spreadsheet."""

from __future__ import annotations

from typing import Any, Final

import orjson

# Spreadsheets treat a cell that starts with one of these as a formula. A line end in a cell starts a new cell.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: Any) -> str:
    """Return the text of a cell, with an apostrophe before text that a spreadsheet would evaluate as a formula."""
    text = orjson.dumps(value).decode() if isinstance(value, (dict, list)) else "" if value is None else str(value)
    text = text.replace("\x00", "\ufffd")
    return "'" + text if text.startswith(_FORMULA_STARTS) else text
