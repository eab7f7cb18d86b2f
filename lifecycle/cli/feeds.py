"""`gravingdock feed`: list, add, run and remove the feeds of advisories and exploits."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_one, print_rows
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("NAME", lambda row: row["name"]),
    ("KIND", lambda row: row["kind"]),
    ("STATE", lambda row: row["state"]),
    ("LAST READ", lambda row: row["synced_at"] or "never"),
    ("EVERY", lambda row: f"{row['every_hours']} h" if row["every_hours"] else "by hand"),
    ("ADDRESS", lambda row: row["location"]),
    ("PROBLEM", lambda row: row["problem"]),
)


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `feed` with its commands."""
    area = areas.add_parser("feed", help="feeds of advisories and exploits (admins)").add_subparsers(
        required=True, metavar="COMMAND"
    )
    area.add_parser("list", parents=[limited], help="list the feeds, and how current they are").set_defaults(
        run=list_feeds
    )
    add = area.add_parser("add", parents=[shared], help="add a feed, and queue its first run")
    add.add_argument("--preset", help="a public feed, for example osv-debian, kev or epss")
    add.add_argument("--name", help="short name (default: that of the preset)")
    add.add_argument("--kind", choices=("osv", "cve", "kev", "epss"), help="what it is")
    add.add_argument("--location", metavar="ADDRESS", help="https address of the source or of your mirror, or a folder")
    add.add_argument("--every", type=int, metavar="HOURS", help="hours between two runs")
    add.set_defaults(run=add_feed)
    sync = area.add_parser("sync", parents=[shared], help="queue a run now")
    sync.add_argument("feed", help="name of the feed")
    sync.add_argument("--accept-smaller", action="store_true", help="also take what lost most of its records")
    sync.set_defaults(run=sync_feed)
    remove = area.add_parser("remove", parents=[shared], help="remove a feed with all that it brought")
    remove.add_argument("feed", help="name of the feed")
    remove.set_defaults(run=remove_feed)


def list_feeds(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("feeds/", most=options.limit), COLUMNS, options)


def add_feed(options: argparse.Namespace, api: Api) -> None:
    given = {name: getattr(options, name) for name in ("preset", "name", "kind", "location")}
    body = {name: value for name, value in (given | {"every_hours": options.every}).items() if value is not None}
    made = api.post("feeds/", body)
    print(json.dumps(made) if options.json else f"Added feed {made['name']}. Its first run is queued.")


def sync_feed(options: argparse.Namespace, api: Api) -> None:
    body = {"accept_smaller": True} if options.accept_smaller else {}
    print_one(api.post(f"feeds/{_find(options.feed, api)}/sync/", body), options)


def remove_feed(options: argparse.Namespace, api: Api) -> None:
    number = _find(options.feed, api)
    api.delete(f"feeds/{number}/")
    print(json.dumps({"removed": number}) if options.json else f"Feed {options.feed} is being removed.")


def _find(name: str, api: Api) -> int:
    for row in api.rows("feeds/", most=sys.maxsize):
        if row["name"] == name:
            return int(row["id"])
    raise CommandFailed(f"No feed {name}.")
