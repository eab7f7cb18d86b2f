"""`gravingdock image contents`: what the check of an image's files found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import Api
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("KIND", lambda row: row["kind"]),
    ("LAYER", lambda row: row["layer"] + 1),
    ("DETAIL", lambda row: row["detail"]),
    ("PATH", lambda row: row["path"]),
)


def add_contents(image: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the subparsers of `image`."""
    command = image.add_parser(
        "contents", parents=[shared], help="list setuid files, private keys, malware and other problems of files"
    )
    command.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG, REPOSITORY@sha256:..., or sha256:...")
    command.set_defaults(run=show_contents)


def show_contents(options: argparse.Namespace, api: Api) -> None:
    """Print the problems of each platform, and what is unknown."""
    document = api.get(f"images/{names.digest_of(options.image, api)}/contents/")
    if options.json:
        print(json.dumps(document))
        return
    for platform in document["results"]:
        print(tables.plain(f"{platform['digest']}  {platform['platform']}"))
        print(tables.plain(f"Check: {platform['problem'] or 'complete'}"))
        malware = platform["malware_problem"] or platform["engine"]
        print(tables.plain(f"Malware: {platform['malware']}{f' ({malware})' if malware else ''}"))
        tables.print_table(platform["found"], COLUMNS)
