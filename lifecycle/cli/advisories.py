"""The area `advisory` of the command line: what the feeds say, and which images it affects."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from lifecycle.cli import tables
from lifecycle.cli.client import Api
from lifecycle.cli.printing import print_rows
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


def add_area(areas: Any, limited: argparse.ArgumentParser) -> None:
    """Add the area `advisory` with its command."""
    area = areas.add_parser("advisory", help="what the feeds say of an advisory").add_subparsers(
        required=True, metavar="COMMAND"
    )
    show = area.add_parser("show", parents=[limited], help="show one advisory, by any of its names")
    show.add_argument("advisory", help="for example CVE-2024-5535")
    show.add_argument("--images", action="store_true", help="list the affected images that you can see")
    show.set_defaults(run=show_advisory)


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
