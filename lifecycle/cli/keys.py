"""The area `keys` of the command line: the keys that sign promoted images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import tables
from lifecycle.cli.client import Api
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("KEY", lambda row: row["name"]),
    ("STATE", lambda row: row["state"]),
    ("FINGERPRINT", lambda row: tables.short(row["fingerprint"])),
    ("PLACE", lambda row: row["place"]),
    ("SINCE", lambda row: tables.moment(row["created_at"])),
)


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `keys` with its commands."""
    area = areas.add_parser("keys", help="public keys that verify promoted images").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = area.add_parser("list", parents=[limited], help="list the signing keys, newest first")
    listing.set_defaults(run=list_keys)
    show = area.add_parser("show", parents=[shared], help="print the public key in PEM form, for cosign and skopeo")
    show.add_argument("name", help="name of the key")
    show.set_defaults(run=show_key)
    create = area.add_parser("create", parents=[shared], help="make a new key; the former one signs too, until retired")
    create.add_argument("name", help="name of the new key")
    create.set_defaults(run=create_key)
    retire = area.add_parser("retire", parents=[shared], help="retire a key: it signs no longer")
    retire.add_argument("name", help="name of the key")
    retire.add_argument("--reason", default="", help="stored in the audit log")
    retire.set_defaults(run=retire_key)


def list_keys(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("signing-keys/", most=options.limit), COLUMNS, options)


def show_key(options: argparse.Namespace, api: Api) -> None:
    _print(api.get(f"signing-keys/{options.name}/"), options)


def create_key(options: argparse.Namespace, api: Api) -> None:
    _print(api.post("signing-keys/", {"name": options.name}), options)


def retire_key(options: argparse.Namespace, api: Api) -> None:
    _print(api.post(f"signing-keys/{options.name}/retire/", {"reason": options.reason}), options)


def _print(document: dict[str, Any], options: argparse.Namespace) -> None:
    print(json.dumps(document) if options.json else tables.plain(document["public_key"].strip(), keep="\n"))
