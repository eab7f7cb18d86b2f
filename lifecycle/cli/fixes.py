"""The area `fix` of the command line: what to do about open findings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lifecycle.cli import tables
from lifecycle.cli.client import Api
from lifecycle.cli.printing import print_fields, print_rows
from lifecycle.cli.tables import Column


def name_of(fix: dict[str, Any]) -> str:
    """Return what the remedy says to do, in words."""
    base = fix["base"] or "a base you may not see"
    if fix["kind"] == "rebuild":
        return f"rebuild on {base}:{fix['base_tag']}" if fix["base"] else f"rebuild on {base}"
    if fix["kind"] == "upgrade":
        return f"upgrade {fix['package_name']} to {fix['fixed_version']}"
    if fix["kind"] == "promote":
        return f"promote {fix['base']}:{fix['base_tag']}" if fix["base"] else "promote an image you may not see"
    if fix["kind"] == "wait":
        return f"waits for {base}: {fix['package_name']}"
    return f"no fix yet: {fix['package_name']}"


def _who(work: dict[str, Any]) -> str:
    return str(work["person"] or f"team {work['to_team']}")


def _severities(fix: dict[str, Any]) -> str:
    found = [f"{fix['severities'][name]} {name}" for name in tables.SEVERITIES if fix["severities"].get(name)]
    exploited = [f"{fix['exploited']} known exploited"] if fix["exploited"] else []
    return ", ".join(exploited + found)


COLUMNS: Final[Sequence[Column]] = (
    ("FIX", lambda row: row["key"]),
    ("WHAT TO DO", name_of),
    ("FINDINGS", lambda row: row["findings"]),
    ("IMAGES", lambda row: row["images"]),
    ("SEVERITY", _severities),
    ("EPSS", lambda row: "unknown" if row["epss"] is None else f"{row['epss']:.2f}"),
    ("DUE", lambda row: (row["due_at"] or "")[:10]),
    ("TEAMS", lambda row: ", ".join(row["teams"])),
    ("ASSIGNED", lambda row: ", ".join(_who(work) for work in row["work"] if work["person"] or work["to_team"])),
    ("SNOOZED", lambda row: ", ".join(work["team"] for work in row["work"] if work["is_snoozed"])),
)
_COMMENTS: Final[Sequence[Column]] = (
    ("AT", lambda row: tables.moment(row["at"])),
    ("BY", lambda row: row["author"]),
    ("COMMENT", lambda row: row["text"]),
)
_IMAGES: Final[Sequence[Column]] = (
    ("IMAGE", lambda row: row["repository"]),
    ("DIGEST", lambda row: tables.short(row["digest"])),
    ("FINDINGS", lambda row: row["findings"]),
)
_ADVISORIES: Final[Sequence[Column]] = (
    ("ADVISORY", lambda row: row["name"]),
    ("SEVERITY", lambda row: row["severity"]),
    ("EXPLOITED", lambda row: "yes" if row["is_exploited"] else ""),
    ("PACKAGES", lambda row: ", ".join(row["packages"])),
    ("IMAGES", lambda row: row["images"]),
)


def add_area(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the area `fix` with its commands."""
    area = areas.add_parser("fix", help="what to do about open findings").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = area.add_parser("list", parents=[shared], help="list what to do, most useful first")
    listing.add_argument("--team", help="only images of this team")
    listing.add_argument("--environment", metavar="TEAM/SLUG", help="only what runs there")
    listing.add_argument("--kind", choices=("rebuild", "upgrade", "promote", "wait", "none"))
    listing.add_argument("--severity", choices=("critical", "high", "medium", "low"), help="this, or worse")
    listing.add_argument("--exploited", action="store_true", help="only what is known to be exploited")
    listing.add_argument("--overdue", action="store_true", help="only what is past its due date")
    listing.add_argument("--who", choices=("mine", "assigned", "unassigned"), help="by who works on it")
    listing.add_argument("--snoozed", choices=("only", "all"), help="what is put off too; without it, it is left out")
    listing.set_defaults(run=list_fixes)
    show = area.add_parser("show", parents=[shared], help="show the images and advisories of one fix")
    show.add_argument("fix", help="as `fix list` prints it")
    show.set_defaults(run=show_fix)
    assign = area.add_parser("assign", parents=[shared], help="say who works on a fix; without a name, nobody")
    assign.add_argument("fix", help="as `fix list` prints it")
    whom = assign.add_mutually_exclusive_group()
    whom.add_argument("person", nargs="?", default="", help="user name")
    whom.add_argument("--to-team", metavar="SLUG", default="", help="a team instead of a person")
    snooze = area.add_parser("snooze", parents=[shared], help="put a fix off, until a time or until there is one")
    snooze.add_argument("fix", help="as `fix list` prints it")
    snooze.add_argument("--days", type=int, help="how long, at most 365")
    snooze.add_argument("--until-fix", action="store_true", help="while there is no fix")
    snooze.add_argument("--reason", default="", help="stored in the audit log")
    wake = area.add_parser("wake", parents=[shared], help="end the snooze of a fix")
    wake.add_argument("fix", help="as `fix list` prints it")
    comment = area.add_parser("comment", parents=[shared], help="write about a fix")
    comment.add_argument("fix", help="as `fix list` prints it")
    comment.add_argument("text", help="the comment")
    for name, command in (("assign", assign), ("snooze", snooze), ("wake", wake), ("comment", comment)):
        command.add_argument("--team", help="for the images of this team; needed if several teams have images with it")
        command.set_defaults(run=act, act=name)


def list_fixes(options: argparse.Namespace, api: Api) -> None:
    """Print the remedies, most useful first."""
    query = {name: getattr(options, name) for name in ("team", "environment", "kind", "severity", "who", "snoozed")}
    query = {name: value for name, value in query.items() if value}
    for name in ("exploited", "overdue"):
        if getattr(options, name):
            query[name] = "true"
    answer = api.get("fixes/", **query)
    print_rows(answer["results"], COLUMNS, options)


def show_fix(options: argparse.Namespace, api: Api) -> None:
    """Print one remedy, its images, and the advisories that it closes."""
    fix = api.get(f"fixes/{options.fix}/")
    if options.json:
        print(json.dumps(fix))
        return
    print(tables.plain(name_of(fix)))
    print()
    print_rows(fix["repositories"], _IMAGES, options)
    print()
    print_rows(fix["advisories"], _ADVISORIES, options)
    if fix["comments"]:
        print()
        print_rows(fix["comments"], _COMMENTS, options)


def act(options: argparse.Namespace, api: Api) -> None:
    """Assign, snooze, wake or comment."""
    body: dict[str, Any] = {"team": options.team} if options.team else {}
    if options.act == "assign":
        body |= {"person": options.person, "to_team": options.to_team}
    elif options.act == "snooze":
        body |= {"until_fix": options.until_fix, "reason": options.reason}
        if options.days is not None:
            body["until"] = (datetime.now(UTC) + timedelta(days=options.days)).isoformat()
    elif options.act == "comment":
        body["text"] = options.text
    print_fields(api.post(f"fixes/{options.fix}/{options.act}/", body), options)
