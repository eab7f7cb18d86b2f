"""`gravingdock gate`: fail a pipeline when an image has findings that its team does not accept."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client, names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.tables import Column

_LEVELS: Final = ("critical", "high", "medium", "low")
_COLUMNS: Final[Sequence[Column]] = (
    ("SEVERITY", lambda row: row["severity"]),
    ("ID", tables.cve),
    ("PACKAGE", lambda row: row["purl"]),
    ("FIXED IN", lambda row: row["fixed_version"] or "no fix available"),
)
_OPEN: Final = ("open", "under_investigation")
_SHOWN: Final = 50  # findings in the summary; the page of the image has all


def add_gate(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command `gate`."""
    gate = areas.add_parser("gate", parents=[shared], help="exit with 3 if an image has findings you do not accept")
    gate.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG, REPOSITORY@sha256:..., or sha256:...")
    add_limits(gate)
    gate.set_defaults(run=check_gate)


def add_limits(command: argparse.ArgumentParser) -> None:
    """Add the options that say which findings stop a pipeline."""
    command.add_argument(
        "--fail-on", choices=_LEVELS, default="high", help="this severity or worse; default %(default)s"
    )
    command.add_argument("--fixable", action="store_true", help="only findings with a fixed version")
    command.add_argument(
        "--allow-unknown", action="store_true", help="pass although packages or severities are unknown"
    )
    command.add_argument("--summary", type=Path, metavar="FILE", help="append a summary in Markdown, for the job page")


def check_gate(options: argparse.Namespace, api: Api) -> None:
    """Print what was found; raises CommandFailed with exit code 3 where the image may not go on."""
    digest = names.digest_of(options.image, api)
    image = api.get(f"images/{digest}/")
    found = api.get(f"images/{digest}/findings/")["results"]
    why = image["findings"]["why"]
    judge({"image": options.image, "digest": digest}, found, [why] if why else [], options)


def judge(
    subject: dict[str, str], findings: Sequence[dict[str, Any]], unknown: list[str], options: argparse.Namespace
) -> None:
    """Print the findings that stop a pipeline, and what is unknown; raises CommandFailed with exit code 3 for these.

    `subject` is what is judged: its name as the first value, and its digest, as the JSON document has them.
    """
    found = tables.by_severity(findings)
    bad = [row for row in found if _stops(row, options)]
    nameless = sum(row["state"] in _OPEN and row["severity"] == "unknown" for row in found)
    unknown = unknown + ([f"{nameless} finding{'' if nameless == 1 else 's'} without a severity"] if nameless else [])
    is_stopped = bool(bad) or (bool(unknown) and not options.allow_unknown)
    document = {
        **subject,
        "fail_on": options.fail_on,
        "fixable": options.fixable,
        "passed": not is_stopped,
        "findings": bad,
        "unknown": unknown,
    }
    name = next(iter(subject.values()))
    if options.summary is not None:
        _append(options.summary, _markdown(name, document))
    if options.json:
        print(json.dumps(document))
    elif bad:
        tables.print_table(bad, _COLUMNS)
    if is_stopped:
        count = f"{len(bad)} finding{'' if len(bad) == 1 else 's'}"
        reasons = [f"{count} of severity {options.fail_on} or worse"] if bad else []
        reasons += [] if options.allow_unknown else [f"unknown: {text}" for text in unknown]
        raise CommandFailed(f"{name} does not pass: {'; '.join(reasons)}.", client.EXIT_POLICY)
    if not options.json:
        print(f"{tables.plain(name)} passes: no finding of severity {options.fail_on} or worse.")


def _stops(row: dict[str, Any], options: argparse.Namespace) -> bool:
    is_bad = row["severity"] in _LEVELS[: _LEVELS.index(options.fail_on) + 1]
    return row["state"] in _OPEN and is_bad and (bool(row["fixed_version"]) or not options.fixable)


def _markdown(name: str, document: dict[str, Any]) -> str:
    verdict = "passes" if document["passed"] else "does not pass"
    lines = [f"### {_cell(name)} {verdict}", "", f"`{document['digest']}`", ""]
    if document["findings"]:
        lines += ["| Severity | Advisory | Package | Fixed in |", "|---|---|---|---|"]
        lines += [
            f"| {row['severity']} | {_cell(tables.cve(row))} | {_cell(row['purl'])} |"
            f" {_cell(row['fixed_version'] or 'no fix available')} |"
            for row in document["findings"][:_SHOWN]
        ]
        if len(document["findings"]) > _SHOWN:
            lines.append(f"| | and {len(document['findings']) - _SHOWN} more | | |")
    lines += [f"Unknown: {_cell(text)}" for text in document["unknown"]]
    return "\n".join([*lines, "", ""])


def _cell(text: str) -> str:
    """Return a text that is only text in a Markdown table: an image or package can have any name."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#|!~" else c for c in tables.plain(text))


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CommandFailed(f"Cannot write {path}: {error.strerror}.") from None
