"""The area `isolation` of the command line: check manifests in a pipeline."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client, names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.tables import Column

FILE_BYTES_MAX: Final = 1024 * 1024
COLUMNS: Final[Sequence[Column]] = (
    ("RESULT", lambda row: row["result"]),
    ("CHECK", lambda row: row["check"]),
    ("WHERE", lambda row: f"{row['pod']} {row['container']}".strip()),
    ("POINTER", lambda row: row["pointer"]),
    ("WHY", lambda row: row["summary"]),
    ("WHAT TO DO", lambda row: row["fix"]),
)


def add_area(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the area `isolation` with its command."""
    area = areas.add_parser("isolation", help="how well pods are isolated").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = area.add_parser("check", parents=[shared], help="check the pods of manifests; exit 3 when one fails")
    check.add_argument("-f", "--file", required=True, help="YAML or JSON, also several documents; - for standard input")
    check.add_argument(
        "--profile", choices=("baseline", "restricted", "all"), default="restricted", help="default %(default)s"
    )
    check.add_argument("--image", default="", help="REPOSITORY:TAG or sha256:... of the main container")
    check.add_argument(
        "--env", default="", metavar="TEAM/ENVIRONMENT", help="exit 3 only for what its rules enforce at admission"
    )
    check.add_argument("--all", action="store_true", help="print checks that pass too")
    check.set_defaults(run=check_file)


def check_file(options: argparse.Namespace, api: Api) -> None:
    """Print what does not pass; raises CommandFailed with exit code 3 when a pod fails, or its environment refuses."""
    body = {"manifest": _text(options.file), "profile": options.profile, "environment": options.env}
    if options.image:
        body["digest"] = names.digest_of(options.image, api)
    answer = api.post("isolation/check/", body)
    if options.json:
        print(json.dumps(answer))
    else:
        _print(answer, is_all=options.all)
    bad = answer["is_blocked"] if options.env else answer["result"] != "pass"
    if bad:
        sys.stdout.flush()
        why = f"The rules of {options.env} refuse it." if options.env else ""
        raise CommandFailed(why or f"Not every check of {options.profile} passes.", client.EXIT_POLICY)


def _print(answer: dict[str, Any], *, is_all: bool) -> None:
    rows = [
        verdict | {"pod": f"{pod['kind']}/{pod['name'] or pod['document']}"}
        for pod in answer["pods"]
        for verdict in pod["verdicts"]
        if is_all or verdict["result"] in {"fail", "unknown"}
    ]
    if rows:
        tables.print_table(rows, COLUMNS)
    for pod in answer["pods"]:
        levels = [name for name in ("baseline", "restricted") if pod["pod_security"][name]] or ["privileged only"]
        words = f"Kubernetes admits it at {' and '.join(levels)}."
        print(tables.plain(f"{pod['kind']}/{pod['name'] or pod['document']}: {pod['result']}. {words}"))


def _text(name: str) -> str:
    """Return the text of a file; raises CommandFailed (usage) when it cannot be read or is too large."""
    try:
        text = sys.stdin.read(FILE_BYTES_MAX + 1) if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"Cannot read {name}: {error}", client.EXIT_USAGE) from None
    if len(text) > FILE_BYTES_MAX:
        raise CommandFailed("The file is larger than 1 MiB.", client.EXIT_USAGE)
    return text
