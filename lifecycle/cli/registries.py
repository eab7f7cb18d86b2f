"""`gravingdock registry`: list, add, test and remove the registries that images can be promoted to."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

PASSWORD_VARIABLE: Final = "GRAVINGDOCK_REGISTRY_PASSWORD"  # noqa: S105 -- the name of a variable
COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("NAME", lambda row: row["name"]),
    ("ADDRESS", lambda row: row["endpoint"]),
    ("MANAGED", lambda row: "yes" if row["is_managed"] else "no"),
    ("USER NAME", lambda row: row["username"]),
)


def add_to(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `registry` with its commands."""
    area = areas.add_parser("registry", help="registries to promote to (admins)").add_subparsers(
        required=True, metavar="COMMAND"
    )
    area.add_parser("list", parents=[limited], help="list the registries").set_defaults(run=list_registries)
    add = area.add_parser("add", parents=[shared], help="add a registry; its password is read from a prompt, standard"
                          f" input or ${PASSWORD_VARIABLE}")  # fmt: skip
    add.add_argument("name", help="short name, for example harbor")
    add.add_argument("endpoint", metavar="ADDRESS", help="for example https://harbor.example.com")
    add.add_argument("--username", default="", help="user name of a robot account; without it, no credentials")
    add.add_argument("--without-tls", action="store_true", help="allow http://: the password travels readable")
    add.add_argument("--ca-certificate", metavar="FILE", help="PEM file of an authority to trust for this registry")
    add.set_defaults(run=add_registry)
    for name, run, text in (
        ("test", test_registry, "ask a registry whether it takes our credentials; exit code 1 if not"),
        ("remove", remove_registry, "remove a registry that nothing uses"),
    ):
        command = area.add_parser(name, parents=[shared], help=text)
        command.add_argument("registry", help="name of the registry")
        command.set_defaults(run=run)


def list_registries(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("registries/", most=options.limit), COLUMNS, options)


def add_registry(options: argparse.Namespace, api: Api) -> None:
    """Add a registry. The password is no argument, because other users of the machine see arguments."""
    body = {
        "name": options.name,
        "endpoint": options.endpoint,
        "username": options.username,
        "password": _password() if options.username else "",
        "without_tls": options.without_tls,
        "ca_certificate": _text_of(options.ca_certificate),
    }
    made = api.post("registries/", body)
    print(json.dumps(made) if options.json else f"Added registry {made['name']}: {made['endpoint']}.")


def test_registry(options: argparse.Namespace, api: Api) -> None:
    """Print what the registry answers, and fail if it does not take our credentials."""
    result = api.post(f"registries/{_find(options.registry, api)}/test/")
    if options.json:
        print(json.dumps(result))
    elif result["is_ok"]:
        print(result["detail"])
    if not result["is_ok"]:
        raise CommandFailed(result["detail"])


def remove_registry(options: argparse.Namespace, api: Api) -> None:
    number = _find(options.registry, api)
    api.delete(f"registries/{number}/")
    print(json.dumps({"removed": number}) if options.json else f"Removed registry {options.registry}.")


def _password() -> str:
    if given := os.environ.get(PASSWORD_VARIABLE):
        return given
    given = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise CommandFailed(f"Give the password on standard input or in ${PASSWORD_VARIABLE}.", client.EXIT_USAGE)
    return given


def _text_of(name: str | None) -> str:
    if not name:
        return ""
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"Cannot read {name}: {error}", client.EXIT_USAGE) from error


def _find(name: str, api: Api) -> int:
    for row in api.rows("registries/", most=sys.maxsize):
        if row["name"] == name:
            return int(row["id"])
    raise CommandFailed(f"No registry {name}.")
