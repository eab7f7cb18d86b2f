"""The area `advisory` of the command line: what the feeds say, which images it affects, and private advisories."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from lifecycle.cli import client, names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows
from lifecycle.cli.tables import Column

_IMAGES: Final[Sequence[Column]] = (
    ("IMAGE", lambda row: row["repository"]),
    ("DIGEST", lambda row: tables.short(row["digest"])),
    ("PACKAGES", lambda row: ", ".join(package["purl"] for package in row["packages"])),
    (
        "FIXED IN",
        lambda row: ", ".join(sorted({package["fixed_version"] or "no fix available" for package in row["packages"]})),
    ),
)


_PRIVATE: Final[Sequence[Column]] = (
    ("PROPOSAL", lambda row: f"PA-{row['id']}"),
    ("ADVISORY", lambda row: row["advisory"]),
    ("STATE", lambda row: row["state"]),
    ("SUMMARY", lambda row: row["document"].get("summary", "")),
    ("AUTHOR", lambda row: row["author"]),
)
_BYTES_MAX: Final = 256 * 1024


def add_area(areas: Any, limited: argparse.ArgumentParser) -> None:
    """Add the area `advisory` with its commands."""
    area = areas.add_parser("advisory", help="what the feeds say of an advisory").add_subparsers(
        required=True, metavar="COMMAND"
    )
    show = area.add_parser("show", parents=[limited], help="show one advisory, by any of its names")
    show.add_argument("advisory", help="for example CVE-2024-5535")
    show.add_argument("--images", action="store_true", help="list the affected images that you can see")
    show.set_defaults(run=show_advisory)
    listing = area.add_parser("private", parents=[limited], help="list the private advisories you can see")
    listing.add_argument("--state", help="requested, live, replaced, rejected or cancelled")
    listing.set_defaults(run=list_private)
    propose = area.add_parser("propose", parents=[limited], help="propose a private advisory, or a change of one")
    propose.add_argument("file", help="an OSV record as a JSON file; - is standard input")
    propose.add_argument("--reason", default="", help="for the person who approves it")
    propose.set_defaults(run=propose_private)
    for name, words in (("approve", "approve a proposal"), ("reject", "reject one"), ("cancel", "take your own back")):
        command = area.add_parser(name, parents=[limited], help=words)
        command.add_argument("proposal", help="number of the proposal, with or without PA-")
        if name != "cancel":
            command.add_argument("--reason", required=name == "reject", default="", help="stored with it")
        command.set_defaults(run=review, act=name)


def show_advisory(options: argparse.Namespace, api: Api) -> None:
    """Print an advisory, with `--images` also the affected images, newest first."""
    path = f"advisories/{quote(options.advisory, safe='')}/"
    found = api.get(path)
    images = list(api.rows(f"{path}images/", most=options.limit)) if options.images else None
    if options.json:
        print(json.dumps(found if images is None else found | {"images": images}))
        return
    exploited = {True: "yes", False: "not in a KEV list", None: "unknown: no KEV list was loaded"}
    score = "" if found["cvss_score"] is None else f"{found['cvss_score']} "
    tables.print_pairs(
        [
            ("Advisory", found["id"]),
            ("Other names", ", ".join(found["names"]) or "none"),
            ("Severity", f"{found['severity']}, by {found['severity_by']}" if found["severity_by"] else "unknown"),
            ("CVSS", f"{score}{found['cvss_vector']}" or "unknown"),
            ("Known exploited", exploited[found["is_exploited"]]),
            ("EPSS", "unknown" if found["epss"] is None else f"{found['epss']:.4f}"),
            *((f"{record['id']}", f"{record['summary']} ({record['feed']})") for record in found["records"][:10]),
        ]
    )
    if images is not None:
        print()
        print_rows(images, _IMAGES, options)


def list_private(options: argparse.Namespace, api: Api) -> None:
    """Print the private advisories, newest first."""
    query = {"state": options.state} if options.state else {}
    print_rows(api.rows("private-advisories/", most=options.limit, **query), _PRIVATE, options)


def propose_private(options: argparse.Namespace, api: Api) -> None:
    """Send an OSV record."""
    try:
        content = sys.stdin.read(_BYTES_MAX + 1) if options.file == "-" else Path(options.file).read_text("utf-8")
        if len(content) > _BYTES_MAX:
            raise CommandFailed("The file is larger than 256 KiB.", client.EXIT_USAGE)
        document = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise CommandFailed(f"Cannot read {options.file}: {error}", client.EXIT_USAGE) from None
    _print(api.post("private-advisories/", {"document": document, "reason": options.reason}), options)


def review(options: argparse.Namespace, api: Api) -> None:
    """Approve, reject or take back."""
    number = names.number_of(options.proposal, "PA-", "a proposal")
    body = {} if options.act == "cancel" else {"reason": options.reason}
    _print(api.post(f"private-advisories/{number}/{options.act}/", body), options)


def _print(row: dict[str, Any], options: argparse.Namespace) -> None:
    print_fields(row if options.json else {name: value for name, value in row.items() if name != "document"}, options)
