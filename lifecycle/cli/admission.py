"""The area `admission` of the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from lifecycle.cli import client, yaml_texts
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows, say
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("WHERE", lambda row: row["where"]),
    ("IMAGE", lambda row: row["reference"]),
    ("RESULT", lambda row: row["code"]),
    ("REASON", lambda row: row["reason"]),
    ("WHO", lambda row: row["who"]),
)
DEBT_COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("WORKLOAD", lambda row: f"{row['workload_kind']} {row['namespace']}/{row['workload_name']}"),
    ("BY", lambda row: row["user_name"]),
    ("DUE", lambda row: row["due_at"]),
    ("REASON", lambda row: row["reason"]),
)


def add_area(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the area `admission` with its commands."""
    area = areas.add_parser("admission", help="ask whether images may start in a cluster").add_subparsers(
        required=True, metavar="COMMAND"
    )
    explain = area.add_parser(
        "explain", parents=[shared], help="say what admission would decide; exit code 3 when it refuses"
    )
    explain.add_argument("images", nargs="*", metavar="IMAGE", help="references of images")
    explain.add_argument("--cluster", required=True, help="short name of the cluster")
    explain.add_argument("--namespace", "-n", required=True, help="where it would run")
    explain.add_argument("--file", "-f", metavar="FILE", help="manifest of one object (YAML or JSON); - for stdin")
    explain.add_argument("--user", default="", help="who would create it, as the cluster names people")
    explain.add_argument("--group", action="append", default=[], help="a group of that user; can be repeated")
    explain.set_defaults(run=explain_images)
    manifest = area.add_parser("manifest", help="print the manifest of a cluster for kubectl apply")
    manifest.add_argument("--cluster", required=True, help="short name of the cluster")
    manifest.set_defaults(run=print_manifest)
    bundle = area.add_parser("bundle", parents=[shared], help="print the certificates that webhooks should trust")
    bundle.add_argument("--cluster", required=True, help="short name of the cluster")
    bundle.set_defaults(run=print_bundle)
    debts = area.add_parser("debts", parents=[shared], help="list break-glass that nobody has reviewed")
    debts.add_argument("--cluster", required=True, help="short name of the cluster")
    debts.set_defaults(run=list_debts)
    review = area.add_parser("review", parents=[shared], help="say whether a break-glass was justified")
    review.add_argument("debt", type=int, metavar="ID", help="as `admission debts` lists it")
    review.add_argument("--cluster", required=True, help="short name of the cluster")
    review.add_argument("--outcome", required=True, choices=("justified", "unjustified"), help="what you found")
    review.add_argument("--comment", required=True, help="what you found, in words")
    review.set_defaults(run=review_debt)


def explain_images(options: argparse.Namespace, api: Api) -> None:
    if bool(options.images) == bool(options.file):
        raise CommandFailed("Give either images or --file.", client.EXIT_USAGE)
    body: dict[str, Any] = {"namespace": options.namespace, "user": options.user, "groups": options.group}
    body |= {"object": _read(options.file)} if options.file else {"images": options.images}
    answer = api.post(f"clusters/{options.cluster}/explain/", body)
    if options.json:
        print(json.dumps(answer))
    else:
        print_rows(answer["images"], COLUMNS, options)
        place = answer["environment"] or "no environment"
        say(f"{'Allowed' if answer['allowed'] else 'Refused'} in {place} (mode {answer['mode']}).")
    if not answer["allowed"]:
        raise CommandFailed("Admission refuses it.", client.EXIT_POLICY)


def print_manifest(options: argparse.Namespace, api: Api) -> None:
    for part in api.download(f"clusters/{options.cluster}/manifest/"):
        sys.stdout.buffer.write(part)


def print_bundle(options: argparse.Namespace, api: Api) -> None:
    found = api.get(f"clusters/{options.cluster}/bundle/")
    if options.json:
        print(json.dumps(found))
        return
    sys.stdout.write(found["bundle"])
    if not found["bundle"]:
        say("The webhooks need no certificates: clusters trust the address anyway.")
    else:
        say(f"sha256 {found['sha256']}, {'confirmed' if found['confirmed'] else 'not confirmed'} by the agent.")


def list_debts(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.get(f"clusters/{options.cluster}/debts/")["results"], DEBT_COLUMNS, options)


def review_debt(options: argparse.Namespace, api: Api) -> None:
    body = {"outcome": options.outcome, "comment": options.comment}
    print_fields(api.post(f"clusters/{options.cluster}/debts/{options.debt}/review/", body), options)


def _read(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        document = yaml_texts.load(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{name} cannot be read: {error}", client.EXIT_USAGE) from None
    if not isinstance(document, dict):
        raise CommandFailed(f"{name} is not one object.", client.EXIT_USAGE)
    return document
