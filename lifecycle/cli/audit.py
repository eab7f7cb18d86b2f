"""`gravingdock audit`: a signed export of the audit log, and the proof of one event."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lifecycle.cli.client import Api
from lifecycle.cli.exports import write


def add_area(areas: Any) -> None:
    """Add the area `audit` with its commands."""
    audit = areas.add_parser("audit", help="export the sealed audit log, with proofs")
    verbs = audit.add_subparsers(required=True, metavar="COMMAND")
    export = verbs.add_parser("export", help="write a signed export, which gravingdock-verify checks offline")
    export.add_argument("file", type=Path, metavar="FILE", help="file to write, such as audit.zip")
    export.add_argument("--since", default="", metavar="DAY", help="first day in UTC, such as 2026-11-30")
    export.add_argument("--until", default="", metavar="DAY", help="last day in UTC")
    export.add_argument(
        "--subject", default="", help='sha256:..., PR-13, "team shop", "person kim" or "environment shop/production"'
    )
    export.add_argument("--since-size", default="", metavar="N", help="size of a checkpoint that you kept")
    export.set_defaults(run=export_log)
    proof = verbs.add_parser("proof", help="write the proof that one event is in the log")
    proof.add_argument("event", type=int, metavar="EVENT", help="number of the event")
    proof.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to standard output")
    proof.set_defaults(run=write_proof)


def export_log(options: argparse.Namespace, api: Api) -> None:
    """Write the file, when all of it has arrived."""
    given = {
        "since": options.since,
        "until": options.until,
        "subject": options.subject,
        "since_size": options.since_size,
    }
    query = {name: value for name, value in given.items() if value}
    write(b"".join(api.download("audit-events/sealed-export/", **query)), options.file)
    print(f"Written to {options.file}. Check it: gravingdock-verify {options.file} --key KEY")


def write_proof(options: argparse.Namespace, api: Api) -> None:
    """Write the proof of one event."""
    write(b"".join(api.download(f"audit-events/{options.event}/proof/")), options.output)
