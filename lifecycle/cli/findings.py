"""The area `finding` of the command line: the findings of a team or a repository as a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from lifecycle.cli.client import Api
from lifecycle.cli.exports import write

# What people ask for -> the kind of the API.
FORMATS: Final = {
    "csv": "findings.csv",
    "sarif": "sarif.json",
    "openvex": "openvex.json",
    "cyclonedx": "cdx.json",
    "spdx": "spdx.json",
    "cyclonedx-vex": "vex.cdx.json",
}


def add_area(areas: Any) -> None:
    """Add the area `finding` with its command."""
    area = areas.add_parser("finding", help="findings of many images").add_subparsers(required=True, metavar="COMMAND")
    command = area.add_parser("export", help="write the findings of all images in use of a team or a repository")
    scope = command.add_mutually_exclusive_group(required=True)
    scope.add_argument("--team", metavar="SLUG", help="of the team's repositories that you can see")
    scope.add_argument("--repository", metavar="NAME", help="of one repository")
    command.add_argument("--format", choices=tuple(FORMATS), default="csv", help="default %(default)s")
    command.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to standard output")
    command.set_defaults(run=export_findings)


def export_findings(options: argparse.Namespace, api: Api) -> None:
    """Write the file. A failed export leaves no file behind, and an existing one as it is."""
    query = {"team": options.team} if options.team else {"repository": options.repository}
    write(b"".join(api.download(f"findings/exports/{FORMATS[options.format]}/", **query)), options.output)
