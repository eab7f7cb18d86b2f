"""`gravingdock vex-feed`: list, add, trust, run and remove the feeds of VEX documents."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_one, print_rows
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("NAME", lambda row: row["name"]),
    ("STATE", lambda row: row["state"]),
    ("COUNTS", lambda row: "yes" if row["trusted_by"] else "advice"),
    ("TEAM", lambda row: row["team"] or "all"),
    ("LAST READ", lambda row: row["synced_at"] or "never"),
    ("EVERY", lambda row: f"{row['every_hours']} h" if row["every_hours"] else "by hand"),
    ("ADDRESS", lambda row: row["location"]),
    ("PROBLEM", lambda row: row["problem"]),
)
_ACTS: Final = {
    "trust": "let what a feed of another user says count",
    "distrust": "make what a feed says advice again",
}


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `vex-feed` with its commands."""
    area = areas.add_parser("vex-feed", help="feeds of VEX documents").add_subparsers(required=True, metavar="COMMAND")
    area.add_parser("list", parents=[limited], help="list the feeds you can see").set_defaults(run=list_feeds)
    add = area.add_parser("add", parents=[shared], help="add a feed, and queue its first run")
    add.add_argument("name", help="short name, for example vendor-vex")
    add.add_argument(
        "location", metavar="ADDRESS", help="https address of a document, or of a folder, which ends with /"
    )
    add.add_argument("--team", default="", help="team whose images it is about; without: all images (admins)")
    add.add_argument(
        "--for", action="append", default=[], dest="speaks_for", metavar="PURL",
        help="beginning of package URLs that it can speak for, for example pkg:deb/debian/; repeat it for more",
    )  # fmt: skip
    add.add_argument("--key", metavar="FILE", help="public key (PEM); each document then needs a signature beside it")
    add.add_argument("--every", type=int, metavar="HOURS", help="hours between two runs (default: 24)")
    add.set_defaults(run=add_feed)
    sync = area.add_parser("sync", parents=[shared], help="queue a run now")
    sync.add_argument("feed", help="name or id of the feed")
    sync.add_argument("--accept-smaller", action="store_true", help="also take a list that lost most of its documents")
    sync.set_defaults(run=sync_feed)
    for name, text in _ACTS.items():
        command = area.add_parser(name, parents=[shared], help=text)
        command.add_argument("feed", help="name or id of the feed")
        command.add_argument("--reason", default="", help="stored with it")
        command.set_defaults(run=act, act=name)
    remove = area.add_parser("remove", parents=[shared], help="remove a feed, and withdraw what it said")
    remove.add_argument("feed", help="name or id of the feed")
    remove.set_defaults(run=remove_feed)


def list_feeds(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("vex/feeds/", most=options.limit), COLUMNS, options)


def add_feed(options: argparse.Namespace, api: Api) -> None:
    body = {name: getattr(options, name) for name in ("name", "location", "team", "speaks_for")}
    if options.key:
        try:
            body["public_key"] = Path(options.key).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise CommandFailed(f"Cannot read {options.key}: {error}", client.EXIT_USAGE) from None
    if options.every is not None:
        body["every_hours"] = options.every
    made = api.post("vex/feeds/", body)
    if not options.json:
        print("It is advice until a second person trusts it: gravingdock vex-feed trust", made["id"], file=sys.stderr)
    print_fields(made, options)


def sync_feed(options: argparse.Namespace, api: Api) -> None:
    body = {"accept_smaller": True} if options.accept_smaller else {}
    print_one(api.post(f"vex/feeds/{_find(options.feed, api)}/sync/", body), options)


def act(options: argparse.Namespace, api: Api) -> None:
    body = {"reason": options.reason} if options.reason else {}
    print_fields(api.post(f"vex/feeds/{_find(options.feed, api)}/{options.act}/", body), options)


def remove_feed(options: argparse.Namespace, api: Api) -> None:
    number = _find(options.feed, api)
    api.delete(f"vex/feeds/{number}/")
    print(json.dumps({"removed": number}) if options.json else f"Feed {options.feed} is removed.")


def _find(name: str, api: Api) -> int:
    found = [row["id"] for row in api.rows("vex/feeds/", most=sys.maxsize) if name in {row["name"], str(row["id"])}]
    if len(found) > 1:
        raise CommandFailed(f"More than one feed is named {name}. Use the id.", client.EXIT_USAGE)
    if not found:
        raise CommandFailed(f"No feed {name}.")
    return int(found[0])
