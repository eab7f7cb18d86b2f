"""`gravingdock image sbom`: send an SBOM of an image, list the SBOMs that are known, withdraw one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_rows, say
from lifecycle.cli.tables import Column
from lifecycle.cli.waiting import positive

COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("PLATFORM", lambda row: row["platform"]),
    ("KIND", lambda row: row["kind"]),
    ("FORMAT", lambda row: row["format"]),
    ("TOOL", lambda row: row["tool"]),
    ("USED", lambda row: "yes" if row["is_used"] else "no"),
    ("PACKAGES", lambda row: row["package_count"]),
    ("NO PURL", lambda row: row["dropped_count"]),
    ("CREATED", lambda row: tables.moment(row["created_at"])),
    ("WHY", lambda row: row["why"]),
)
_IMAGE_HELP: Final = "REPOSITORY:TAG, REPOSITORY@sha256:..., or sha256:..."


def add_sbom(image: Any, shared: argparse.ArgumentParser) -> None:
    """Add the commands to the subparsers of `image`."""
    sbom = image.add_parser("sbom", help="send an SBOM, list those that are known, withdraw one").add_subparsers(
        required=True, metavar="COMMAND"
    )
    send = sbom.add_parser("send", parents=[shared], help="send an SBOM: it decides instead of our scan (image.scan)")
    send.add_argument("file", type=Path, metavar="FILE", help="CycloneDX (JSON, XML), SPDX 2.2, 2.3 or 3.0 (JSON)")
    send.add_argument("image", metavar="IMAGE", help=_IMAGE_HELP)
    send.set_defaults(run=send_sbom)
    listing = sbom.add_parser("list", parents=[shared], help="list the SBOMs of an image, and which of them decides")
    listing.add_argument("image", metavar="IMAGE", help=_IMAGE_HELP)
    listing.set_defaults(run=list_sboms)
    withdraw = sbom.add_parser("withdraw", parents=[shared], help="withdraw an SBOM: it decides nothing any more")
    withdraw.add_argument("image", metavar="IMAGE", help=_IMAGE_HELP)
    withdraw.add_argument("id", type=positive, help="number of the SBOM, as in list")
    withdraw.add_argument("--reason", default="", help="for the audit log")
    withdraw.set_defaults(run=withdraw_sbom)


def send_sbom(options: argparse.Namespace, api: Api) -> None:
    """Send the file, and print what became of it."""
    try:
        content = options.file.read_bytes()
    except OSError as error:
        raise CommandFailed(f"Cannot read {options.file}: {error.strerror}.") from None
    digest = names.digest_of(options.image, api)
    row = api.post_document(f"images/{digest}/sboms/", content)
    _print(row, options)


def list_sboms(options: argparse.Namespace, api: Api) -> None:
    """Print the SBOMs."""
    rows = api.get(f"images/{names.digest_of(options.image, api)}/sboms/")["results"]
    print_rows(rows, COLUMNS, options)


def withdraw_sbom(options: argparse.Namespace, api: Api) -> None:
    """Withdraw one SBOM."""
    digest = names.digest_of(options.image, api)
    row = api.post(f"images/{digest}/sboms/{options.id}/withdraw/", {"reason": options.reason})
    _print(row, options)


def _print(row: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(row))
        return
    used = "It decides what packages the image has" if row["is_used"] else "It does not decide"
    print(tables.plain(f"SBOM {row['id']}, {row['format']}: {row['package_count']} packages. {used}: {row['why']}"))
    for one in row["dropped"]:
        say(f"No package URL: {one['name']} {one['version']} ({one['place']})")
    if row["differences"] is not None:
        found = row["differences"]
        print(
            f"Against our scan: only here {found['only_mine_count']}, only there {found['only_theirs_count']}, "
            f"in another version {found['other_version_count']}, the same {found['same_count']}."
        )
