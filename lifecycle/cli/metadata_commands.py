"""`gravingdock metadata`: typed keys and values on a repository, or on an image in a repository."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import Api
from lifecycle.cli.tables import Column

TYPES: Final = ("text", "number", "boolean", "date", "link")
_WHAT_HELP: Final = "REPOSITORY, or an image in it: REPOSITORY:TAG or REPOSITORY@sha256:..."
_COLUMNS: Final[Sequence[Column]] = (
    ("KEY", lambda row: row["key"]),
    ("VALUE", lambda row: row["value"]),
    ("TYPE", lambda row: row["kind"]),
    ("OF", lambda row: tables.short(row["digest"]) or "repository"),
    ("CHANGED BY", lambda row: row["changed_by"]),
    ("CHANGED", lambda row: tables.moment(row["changed_at"])),
)


def add_metadata(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the area and its commands to the subparsers of the program."""
    area = areas.add_parser("metadata", help="keys and values of your own on repositories and images")
    commands = area.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", parents=[shared], help="list the metadata of a repository or image")
    setting = commands.add_parser("set", parents=[shared], help="set one key; needs image.amend")
    removal = commands.add_parser("remove", parents=[shared], help="remove one key; needs image.amend")
    for command, run in ((listing, list_metadata), (setting, set_metadata), (removal, remove_metadata)):
        command.add_argument("what", metavar="REPOSITORY|IMAGE", help=_WHAT_HELP)
        command.set_defaults(run=run)
    for command in (setting, removal):
        command.add_argument("key", metavar="KEY", help="name of the pair, for example owner")
    setting.add_argument("value", metavar="VALUE", help="value of the pair")
    setting.add_argument("--type", choices=TYPES, default="text", help="type of the value (default %(default)s)")


def list_metadata(options: argparse.Namespace, api: Api) -> None:
    path, about = _address(options.what, api)
    rows = api.get(path, **about)["results"]
    if options.json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        tables.print_table(rows, _COLUMNS)
    else:
        print("No metadata.", file=sys.stderr)


def set_metadata(options: argparse.Namespace, api: Api) -> None:
    path, about = _address(options.what, api)
    row = api.put(path, {"key": options.key, "kind": options.type, "value": options.value, **about})
    if options.json:
        print(json.dumps(row))
    else:
        print(tables.plain(f"{row['key']} = {row['value']}"))


def remove_metadata(options: argparse.Namespace, api: Api) -> None:
    path, about = _address(options.what, api)
    api.delete(path, key=options.key, **about)
    print(tables.plain(f"{options.key} removed."), file=sys.stderr)


def _address(what: str, api: Api) -> tuple[str, dict[str, Any]]:
    """Return the path of the metadata, and the digest in a dictionary; {} for the repository itself."""
    repository, digest = names.subject_of(what, api)
    return f"repositories/{names.repository_id(repository, api)}/metadata/", {"digest": digest} if digest else {}
