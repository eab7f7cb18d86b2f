"""The area `fix` of the command line: what to do about open findings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import tables
from lifecycle.cli.client import Api
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column


def name_of(fix: dict[str, Any]) -> str:
    """Return what the remedy says to do, in words."""
    base = fix["base"] or "a base you may not see"
    if fix["kind"] == "rebuild":
        return f"rebuild on {base}:{fix['base_tag']}" if fix["base"] else f"rebuild on {base}"
    if fix["kind"] == "upgrade":
        return f"upgrade {fix['package_name']} to {fix['fixed_version']}"
    if fix["kind"] == "wait":
        return f"waits for {base}: {fix['package_name']}"
    return f"no fix yet: {fix['package_name']}"


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
    listing.add_argument("--kind", choices=("rebuild", "upgrade", "wait", "none"))
    listing.add_argument("--severity", choices=("critical", "high", "medium", "low"), help="this, or worse")
    listing.add_argument("--exploited", action="store_true", help="only what is known to be exploited")
    listing.add_argument("--overdue", action="store_true", help="only what is past its due date")
    listing.set_defaults(run=list_fixes)
    show = area.add_parser("show", parents=[shared], help="show the images and advisories of one fix")
    show.add_argument("fix", help="as `fix list` prints it")
    show.set_defaults(run=show_fix)


def list_fixes(options: argparse.Namespace, api: Api) -> None:
    """Print the remedies, most useful first."""
    query = {name: getattr(options, name) for name in ("team", "environment", "kind", "severity")}
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
