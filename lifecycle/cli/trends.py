"""`gravingdock trend`: how open findings changed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli.client import Api
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

_NAMES: Final = ("critical", "high", "medium", "low", "unknown", "exploited", "overdue", "fixed", "unscanned")
COLUMNS: Final[Sequence[Column]] = (
    ("DAY", lambda row: row["day"]),
    *((name.upper(), lambda row, name=name: row[name]) for name in _NAMES),
)


def add_area(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the area `trend` with its command."""
    area = areas.add_parser("trend", help="how open findings changed").add_subparsers(required=True, metavar="COMMAND")
    show = area.add_parser("show", parents=[shared], help="print the open findings of each day, oldest first")
    scope = show.add_mutually_exclusive_group()
    scope.add_argument("--team", metavar="SLUG", help="of a team whose repositories you can all see")
    scope.add_argument("--repository", metavar="NAME", help="of one repository")
    show.add_argument("--days", type=int, choices=(30, 90, 365), default=30, help="how far back (default: 30)")
    show.set_defaults(run=show_trend)


def show_trend(options: argparse.Namespace, api: Api) -> None:
    """Print one line a day, and how long fixes took."""
    query = {name: value for name in ("team", "repository") if (value := getattr(options, name))}
    trend = api.get("trends/", days=str(options.days), **query)
    if options.json:
        print(json.dumps(trend))
        return
    print_rows(trend["points"], COLUMNS, options)
    took = "" if trend["median_days"] is None else f", {trend['median_days']:g} days from first seen to fixed (median)"
    print(f"\n{trend['fixed']} fixed{took}.")
