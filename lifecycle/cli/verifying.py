"""`gravingdock verify IMAGE`: who signed an image, and whether it counts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("WHAT", lambda row: row["predicate_type"] or "signature"),
    ("BY", lambda row: row["identity"] or tables.short(row["key_fingerprint"]) or "unknown"),
    ("RESULT", lambda row: f"trusted by {', '.join(row['sources'])}" if row["sources"] else row["state"]),
    ("REASON", lambda row: row["reason"]),
)


def add_verify(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command `verify`."""
    verify = areas.add_parser(
        "verify", parents=[shared], help="show who signed an image; exit 1 unless a trusted signer signed it"
    )
    verify.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG, REPOSITORY (for its tag latest), or sha256:...")
    verify.set_defaults(run=verify_image)


def verify_image(options: argparse.Namespace, api: Api) -> None:
    """Print the signatures of an image. Raises CommandFailed when no trusted signer signed it, or nobody can say."""
    found = api.get(f"images/{names.digest_of(options.image, api)}/signatures/")
    if options.json:
        print(json.dumps(found))
    elif found["signatures"]:
        tables.print_table(found["signatures"], COLUMNS)
    if not found["is_known"]:
        raise CommandFailed(f"Unknown: {found['problem']}")
    if not any(row["state"] == "verified" and row["sources"] for row in found["signatures"]):
        raise CommandFailed("No trusted signer has signed this image.")
