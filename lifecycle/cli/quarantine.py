"""The area `quarantine` of the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import Api
from lifecycle.cli.printing import print_fields, print_rows
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("QUARANTINE", lambda row: f"Q-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("DIGEST", lambda row: tables.short(row["digest"])),
    ("COVERS", lambda row: "image and descendants" if row["descendants"] else "image"),
    ("BY", lambda row: row["created_by"]),
    ("SINCE", lambda row: tables.moment(row["created_at"])),
    ("REASON", lambda row: row["reason"]),
)
_ACTS: Final = {
    "request-release": "ask another person to lift a quarantine",
    "release": "lift a quarantine whose release another person requested",
    "withdraw": "stop pulls too: take the image out of the registry",
    "refuse-release": "keep a quarantine whose release was requested",
}


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `quarantine` with its commands."""
    area = areas.add_parser("quarantine", help="stop promotions of an image and of what is built on it").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = area.add_parser("create", parents=[shared], help="quarantine a digest")
    create.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG or sha256:...")
    create.add_argument("--reason", required=True, help="everybody who is stopped reads it")
    create.add_argument("--incident", default="", help="a ticket or a link")
    create.add_argument("--only-image", action="store_true", help="do not cover images built on it")
    create.add_argument("--withdraw", action="store_true", help="stop pulls too: take it out of the registry")
    create.set_defaults(run=create_quarantine)
    listing = area.add_parser("list", parents=[limited], help="list the quarantines you can see, newest first")
    listing.add_argument("--state", help="only in this state: active, release_requested or released")
    listing.set_defaults(run=list_quarantines)
    show = area.add_parser("show", parents=[shared], help="show a quarantine and the covered images you can see")
    _add_number(show)
    show.set_defaults(run=show_quarantine)
    for name, text in _ACTS.items():
        command = area.add_parser(name, parents=[shared], help=text)
        _add_number(command)
        command.add_argument("--reason", required=name != "release", default="", help="stored in the audit log")
        command.set_defaults(run=act, act=name)
    exempt = area.add_parser("exempt", parents=[shared], help="exempt one image built on the quarantined one")
    _add_number(exempt)
    exempt.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG or sha256:...")
    exempt.add_argument("--reason", required=True, help="why it is harmless")
    exempt.set_defaults(run=exempt_image)


def _add_number(command: argparse.ArgumentParser) -> None:
    command.add_argument("quarantine", help="number of the quarantine, with or without Q-")


def create_quarantine(options: argparse.Namespace, api: Api) -> None:
    body = {
        "digest": names.digest_of(options.image, api),
        "reason": options.reason,
        "incident": options.incident,
        "descendants": not options.only_image,
        "withdraw": options.withdraw,
    }
    print_fields(api.post("quarantines/", body), options)


def list_quarantines(options: argparse.Namespace, api: Api) -> None:
    rows = api.rows("quarantines/", most=options.limit, **({"state": options.state} if options.state else {}))
    print_rows(rows, COLUMNS, options)


def show_quarantine(options: argparse.Namespace, api: Api) -> None:
    number = _number(options)
    document = api.get(f"quarantines/{number}/")
    document["images"] = api.get(f"quarantines/{number}/images/")["results"]
    document["withdrawals"] = api.get(f"quarantines/{number}/withdrawals/")["results"] if document["withdraw"] else []
    if options.json:
        print(json.dumps(document))
        return
    images, withdrawals = document.pop("images"), document.pop("withdrawals")
    print_fields(document, options)
    for item in withdrawals:
        print(tables.plain(f"{item['state']}  {item['repository']}@{item['digest']}  {', '.join(item['tags'])}"))
    for image in images:
        print(tables.plain(f"{image['digest']}  {', '.join(image['repositories'])}"))


def act(options: argparse.Namespace, api: Api) -> None:
    body = {"reason": options.reason} if options.reason else {}
    print_fields(api.post(f"quarantines/{_number(options)}/{options.act}/", body), options)


def exempt_image(options: argparse.Namespace, api: Api) -> None:
    body = {"digest": names.digest_of(options.image, api), "reason": options.reason}
    print_fields(api.post(f"quarantines/{_number(options)}/exemptions/", body), options)


def _number(options: argparse.Namespace) -> str:
    return names.number_of(options.quarantine, "Q-", "a quarantine")
