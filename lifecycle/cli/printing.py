"""What commands print: data on standard output, as tables or with `--json`; messages on standard error."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from lifecycle.cli import tables
from lifecycle.cli.tables import Column


def say(text: str) -> None:
    """Print a message for people on standard error."""
    print(tables.plain(text), file=sys.stderr)


def print_one(document: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the fields of a document, or with `--json` the document."""
    if options.json:
        print(json.dumps(document))
        return
    tables.print_pairs((_label(name), _readable(name, value)) for name, value in document.items())


def print_fields(document: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the fields of a document with their values as they are, or with `--json` the document."""
    if options.json:
        print(json.dumps(document))
        return
    tables.print_pairs((_label(name), value) for name, value in document.items())


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _readable(name: str, value: Any) -> Any:
    """Return a value of a document for people: times in minutes, and lists of objects as one line each."""
    if isinstance(value, str) and name.endswith(("_at", "_by")) and "T" in value:
        return tables.moment(value)
    if isinstance(value, list):
        return "; ".join(_item(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{inner} {key}" for key, inner in value.items())
    return value


def _item(item: Any) -> str:
    if not isinstance(item, dict):
        return tables.plain(item)
    if "summary" in item:  # a requirement of a promotion
        return f"{item['title']}: {item['status']} ({item['summary']})"
    if "voter" in item:
        return f"{item['voter']}: {item['value']}" + (f" ({item['comment']})" if item["comment"] else "")
    return ", ".join(f"{name} {tables.plain(value)}" for name, value in item.items())


def print_rows(rows: Iterable[dict[str, Any]], columns: Sequence[Column], options: argparse.Namespace) -> None:
    """Print a table, or with `--json` one object per line."""
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    tables.print_table(rows, columns)
