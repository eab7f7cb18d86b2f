"""`gravingdock image export`: the packages or findings of an image as a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import names
from lifecycle.cli.client import Api, CommandFailed

# What people ask for -> the kind of the API.
FORMATS: Final = {
    "cyclonedx": "cdx.json",
    "spdx": "spdx.json",
    "syft": "syft.json",
    "packages-csv": "packages.csv",
    "findings-csv": "findings.csv",
    "findings-json": "findings.json",
    "sarif": "sarif.json",
    "openvex": "openvex.json",
    "cyclonedx-vex": "vex.cdx.json",
}


def add_export(image: Any) -> None:
    """Add the command to the subparsers of `image`."""
    command = image.add_parser("export", help="write the SBOM, packages, findings or VEX of an image")
    command.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG, REPOSITORY@sha256:..., or sha256:...")
    command.add_argument("--format", choices=tuple(FORMATS), default="cyclonedx", help="default %(default)s")
    command.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to standard output")
    command.set_defaults(run=export_image)


def export_image(options: argparse.Namespace, api: Api) -> None:
    """Write the file. A failed export leaves no file behind, and an existing one as it is."""
    repository, _, _ = names.parts_of(options.image)
    digest = names.digest_of(options.image, api)
    query = {"repository": repository} if repository else {}
    # All of it first: half an SBOM must not look like a whole one.
    write(b"".join(api.download(f"images/{digest}/exports/{FORMATS[options.format]}/", **query)), options.output)


def write(content: bytes, output: Path | None) -> None:
    """Write a whole file to `output`, or to standard output. Raises CommandFailed."""
    if output is None:
        sys.stdout.write(content.decode())
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise CommandFailed(f"Cannot write {output}: {error.strerror}.") from None
