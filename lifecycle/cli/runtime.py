"""The area `runtime` of the command line: report what runs, and list it."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from lifecycle.cli import tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

FORMATS: Final = ("kubernetes", "docker", "ecs", "report")
COLUMNS: Final[Sequence[Column]] = (
    ("CLUSTER", lambda row: row["cluster"] or "(another team's)"),
    ("ENVIRONMENT", lambda row: row["environment"] or "-"),
    ("NAMESPACE", lambda row: row["namespace"] or "-"),
    ("WORKLOAD", lambda row: f"{row['workload_kind']}/{row['workload_name']}" if row["workload_name"] else "-"),
    ("IMAGE", lambda row: row["image"]),
    ("DIGEST", lambda row: tables.short(row["digest"]) if row["digest"] else "not resolved"),
    ("CONTAINERS", lambda row: row["containers"]),
    ("CRITICAL", lambda row: _count(row, "critical")),
    ("HIGH", lambda row: _count(row, "high")),
    ("SINCE", lambda row: tables.moment(row["since"])),
)


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `runtime` with its commands."""
    area = areas.add_parser("runtime", help="what runs where: report it, list it").add_subparsers(
        required=True, metavar="COMMAND"
    )
    report = area.add_parser("report", parents=[shared], help="report the containers of a cluster (runtime.report)")
    report.add_argument("file", metavar="FILE|-", help="output of the tool, or - for standard input")
    report.add_argument("--cluster", required=True, help="name of the cluster")
    report.add_argument(
        "--format", required=True, choices=FORMATS,
        help="kubernetes: kubectl get pods -A -o json; docker: docker inspect; ecs: aws ecs describe-tasks; report:"
        " gravingdock.report.v1",
    )  # fmt: skip
    report.add_argument("--reporter", default="", help="whose containers these are, if a cluster has several hosts")
    report.set_defaults(run=report_running)
    listing = area.add_parser("list", parents=[limited], help="list what runs, newest first")
    listing.add_argument("--at", metavar="TIME", help="what ran at this time, for example 2026-11-30T12:00:00Z")
    for name in ("cluster", "environment", "namespace", "digest"):
        listing.add_argument(f"--{name}", help=f"only of this {name}")
    listing.set_defaults(run=list_running)


def report_running(options: argparse.Namespace, api: Api) -> None:
    """Send the file, and print the number of the job that applies it."""
    try:
        content = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    except OSError as error:
        raise CommandFailed(f"Cannot read {options.file}: {error.strerror}.") from None
    given = {} if options.format == "report" else {"format": options.format}
    query = given | ({"reporter": options.reporter} if options.reporter else {})
    path = f"clusters/{quote(options.cluster, safe='')}/reports/" + (f"?{urlencode(query)}" if query else "")
    answer = api.post_document(path, gzip.compress(content, 5), encoding="gzip")
    if options.json:
        print(json.dumps(answer))
        return
    warning = f" {answer['warning']}" if answer["warning"] else ""
    print(tables.plain(f"Report {answer['report_id']} is accepted. Job {answer['job']} applies it.{warning}"))


def list_running(options: argparse.Namespace, api: Api) -> None:
    """Print what runs."""
    wanted = ("at", "cluster", "environment", "namespace", "digest")
    query = {name: value for name in wanted if (value := getattr(options, name))}
    print_rows(api.rows("running/", most=options.limit, **query), COLUMNS, options)


def _count(row: dict[str, Any], severity: str) -> str:
    known = row["known_now"]
    return "-" if known is None else str(known[severity])
