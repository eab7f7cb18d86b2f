"""The area `alert` of the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import Api
from lifecycle.cli.printing import print_fields, print_rows
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("ALERT", lambda row: f"A-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("KIND", lambda row: row["kind"]),
    ("SEVERITY", lambda row: row["severity"]),
    ("ABOUT", lambda row: _about(row)),  # noqa: PLW0108 -- it is defined below
    ("TEAM", lambda row: row["team"]),
    ("IMAGES", lambda row: row["images"]),
    ("SINCE", lambda row: tables.moment(row["first_at"])),
)
_IMAGES: Final[Sequence[Column]] = (
    ("IMAGE", lambda row: row["repository"]),
    ("DIGEST", lambda row: tables.short(row["digest"])),
    ("STATE", lambda row: row["state"]),
)
_FILTERS: Final = ("state", "kind", "severity", "team", "vulnerability", "cluster")


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `alert` with its commands."""
    area = areas.add_parser("alert", help="what changed: new, worse, exploited and fixed findings").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = area.add_parser("list", parents=[limited], help="list the alerts you can see, newest first")
    listing.add_argument("--state", default="live", help="live (the default), open, acknowledged, snoozed or resolved")
    listing.add_argument("--kind", help="only of this kind, for example finding.new")
    listing.add_argument("--severity", help="only of this severity")
    listing.add_argument("--team", help="only of this team")
    listing.add_argument("--vulnerability", metavar="NAME", help="only about this one, for example CVE-2026-1")
    listing.add_argument("--cluster", help="only in this cluster")
    listing.set_defaults(run=list_alerts)
    show = area.add_parser("show", parents=[shared], help="show an alert and its images")
    _add_number(show)
    show.set_defaults(run=show_alert)
    acknowledge = area.add_parser("acknowledge", parents=[shared], help="say that somebody works on it")
    snooze = area.add_parser("snooze", parents=[shared], help="put it off; then it is open again")
    resolve = area.add_parser("resolve", parents=[shared], help="close it with a reason")
    for name, command in (("acknowledge", acknowledge), ("snooze", snooze), ("resolve", resolve)):
        _add_number(command)
        command.add_argument("--reason", required=name == "resolve", default="", help="stored in the audit log")
        command.set_defaults(run=act, act=name)
    snooze.add_argument("--days", type=int, default=7, help="how long, at most 90 (default: 7)")


def _add_number(command: argparse.ArgumentParser) -> None:
    command.add_argument("alert", help="number of the alert, with or without A-")


def _about(row: dict[str, Any]) -> str:
    place = "/".join(part for part in (row["cluster"], row["namespace"], row["workload"]) if part)
    named = " in ".join(part for part in (row["rule"], place) if part)
    return row["vulnerability"] or named or tables.short(row["digest"] or "")


def list_alerts(options: argparse.Namespace, api: Api) -> None:
    """Print the alerts."""
    query = {name: value for name in _FILTERS if (value := getattr(options, name))}
    print_rows(api.rows("alerts/", most=options.limit, **query), COLUMNS, options)


def show_alert(options: argparse.Namespace, api: Api) -> None:
    """Print an alert with its images."""
    document = api.get(f"alerts/{_number(options)}/")
    if options.json:
        print(json.dumps(document))
        return
    affected, waiting = document.pop("affected"), document.pop("waiting_on_base")
    repositories, evidence = document.pop("repositories"), document.pop("evidence")
    document["packages"] = "; ".join(item["why"] or item["package"] for item in evidence.get("packages", ()))
    document |= {name: evidence[name] for name in ("why", "fix") if evidence.get(name)}
    document["repositories"] = ", ".join(f"{row['repository']} ({row['images']})" for row in repositories)
    print_fields(document, options)
    rows = [row | {"state": "affected"} for row in affected] + [row | {"state": "waits on base"} for row in waiting]
    if rows:
        print()
        print_rows(rows, _IMAGES, options)


def act(options: argparse.Namespace, api: Api) -> None:
    """Acknowledge, snooze or resolve."""
    body = {"reason": options.reason}
    if options.act == "snooze":
        body["until"] = (datetime.now(UTC) + timedelta(days=options.days)).isoformat()
    document = api.post(f"alerts/{_number(options)}/{options.act}/", body)
    if not options.json:
        document.pop("evidence")
    print_fields(document, options)


def _number(options: argparse.Namespace) -> str:
    return names.number_of(options.alert, "A-", "an alert")
