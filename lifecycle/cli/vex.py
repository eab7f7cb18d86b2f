"""The area `vex` of the command line: decisions about findings, and VEX documents."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client, names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows
from lifecycle.cli.tables import Column

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
STATUSES: Final = ("not_affected", "false_positive", "fixed", "under_investigation", "affected")
COLUMNS: Final[Sequence[Column]] = (
    ("DECISION", lambda row: f"VEX-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("VULNERABILITY", lambda row: row["vulnerability"]),
    ("STATUS", lambda row: row["status"]),
    ("IMAGES", lambda row: row["digest"][:19] or row["repository"] or row["team"] or "all"),
    ("PACKAGE", lambda row: row["package"] or "all"),
    ("UNTIL", lambda row: tables.moment(row["until"])),
    ("AUTHOR", lambda row: row["author"]),
)
DOCUMENT_COLUMNS: Final[Sequence[Column]] = (
    ("DOCUMENT", lambda row: f"VD-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("FORMAT", lambda row: row["format"]),
    ("NAME", lambda row: row["name"]),
    ("AUTHOR", lambda row: row["author"]),
    ("TEAM", lambda row: row["team"] or "all"),
    ("STATEMENTS", lambda row: row["statement_count"]),
    ("REFUSED", lambda row: row["refused_count"]),
)
_ACTS: Final = {
    "approve": "approve a decision of another user (VEX-...), or accept a document (VD-...)",
    "reject": "reject a decision permanently; requires --reason",
    "withdraw": "end a decision (VEX-...) or a document (VD-...)",
}


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `vex` with its commands."""
    vex = areas.add_parser("vex", help="decide about findings, and bring VEX documents").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = vex.add_parser("list", parents=[limited], help="list the decisions you can see, newest first")
    listing.add_argument("--state", help="only decisions in this state, for example live")
    listing.add_argument("--vulnerability", help="only decisions about this one")
    listing.set_defaults(run=list_decisions)
    documents = vex.add_parser("documents", parents=[limited], help="list the VEX documents you can see, newest first")
    documents.set_defaults(run=list_documents)
    decide = vex.add_parser("decide", parents=[shared], help="say what a vulnerability means for some images")
    decide.add_argument("vulnerability", help="for example CVE-2026-1")
    decide.add_argument("--status", required=True, choices=STATUSES, help="what it means")
    decide.add_argument("--reason", required=True, help="why")
    decide.add_argument("--justification", default="", help="required for not_affected: a word of OpenVEX")
    where = decide.add_mutually_exclusive_group(required=True)
    where.add_argument("--image", metavar="IMAGE", help="only this digest: REPOSITORY:TAG or REPOSITORY@sha256:...")
    where.add_argument("--repository", help="all images of this repository")
    where.add_argument("--team", help="all images of this team")
    where.add_argument("--all", action="store_true", help="all images (admins)")
    decide.add_argument("--package", default="", help="package URL; without a version: all versions; default: all")
    decide.add_argument("--until", help="when it ends, for example 2026-12-24T12:00:00Z")
    decide.set_defaults(run=decide_finding)
    bring = vex.add_parser("import", parents=[shared], help="send a VEX document: OpenVEX, CycloneDX or CSAF")
    bring.add_argument("file", help="the document, JSON; - for standard input")
    bring.add_argument("--team", default="", help="team whose images it is about; without: all images (admins)")
    bring.set_defaults(run=import_document)
    for name, text in _ACTS.items():
        command = vex.add_parser(name, parents=[shared], help=text)
        command.add_argument("number", help="VEX-... or VD-...")
        command.add_argument("--reason", required=name == "reject", default="", help="stored with it")
        command.set_defaults(run=act, decision=name)


def list_decisions(options: argparse.Namespace, api: Api) -> None:
    query = {name: getattr(options, name) for name in ("state", "vulnerability") if getattr(options, name)}
    print_rows(api.rows("vex/statements/", most=options.limit, **query), COLUMNS, options)


def list_documents(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("vex/documents/", most=options.limit), DOCUMENT_COLUMNS, options)


def decide_finding(options: argparse.Namespace, api: Api) -> None:
    body: dict[str, Any] = {
        name: getattr(options, name) for name in ("vulnerability", "status", "reason", "justification", "package")
    }
    if options.until:
        body["until"] = options.until
    if options.image:
        repository, digest = names.subject_of(options.image, api)
        if not digest:
            raise CommandFailed("Name one image: REPOSITORY:TAG or REPOSITORY@sha256:...", client.EXIT_USAGE)
        body |= {"scope": "digest", "repository": repository, "digest": digest}
    elif options.repository:
        body |= {"scope": "repository", "repository": options.repository}
    elif options.team:
        body |= {"scope": "team", "team": options.team}
    else:
        body["scope"] = "all"
    row = api.post("vex/statements/", body)
    if row["state"] == "requested" and not options.json:
        print(f"VEX-{row['id']} waits for a second person: gravingdock vex approve VEX-{row['id']}", file=sys.stderr)
    print_fields(row, options)


def import_document(options: argparse.Namespace, api: Api) -> None:
    """Send a document, and print each statement that cannot be used."""
    try:
        content = sys.stdin.read(FILE_BYTES_MAX + 1) if options.file == "-" else Path(options.file).read_text("utf-8")
        if len(content) > FILE_BYTES_MAX:
            raise CommandFailed("The file is larger than 16 MiB.", client.EXIT_USAGE)
        document = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise CommandFailed(f"Cannot read {options.file}: {error}", client.EXIT_USAGE) from None
    row = api.post("vex/documents/", {"team": options.team, "document": document})
    for position, reason in row["refused"]:
        print(tables.plain(f"refused {position}: {reason}"), file=sys.stderr)
    print_fields({name: value for name, value in row.items() if name != "refused" or options.json}, options)


def act(options: argparse.Namespace, api: Api) -> None:
    kind, _, number = options.number.upper().partition("-")
    if kind not in {"VEX", "VD"} or not number.isascii() or not number.isdigit():
        raise CommandFailed("Name a decision as VEX-12, or a document as VD-3.", client.EXIT_USAGE)
    decision = options.decision
    if kind == "VD":
        if decision == "reject":
            raise CommandFailed("A document cannot be rejected. Withdraw it.", client.EXIT_USAGE)
        decision = {"approve": "accept"}.get(decision, decision)
    body = {"reason": options.reason} if options.reason else {}
    print_fields(api.post(f"vex/{'statements' if kind == 'VEX' else 'documents'}/{number}/{decision}/", body), options)
