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
_SHOWN: Final = 50  # findings in the summary; the page of the image has all


def add_gate(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command `gate`."""
    gate = areas.add_parser("gate", parents=[shared], help="exit with 3 if an image has findings you do not accept")
    gate.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG, REPOSITORY@sha256:..., or sha256:...")
    gate.add_argument("--fail-on", choices=_LEVELS, default="high", help="this severity or worse; default %(default)s")
    gate.add_argument("--fixable", action="store_true", help="only findings with a fixed version")
    gate.add_argument("--allow-unknown", action="store_true", help="pass although packages or severities are unknown")
    gate.add_argument("--summary", type=Path, metavar="FILE", help="append a summary in Markdown, for the job page")
    gate.set_defaults(run=check_gate)


def check_gate(options: argparse.Namespace, api: Api) -> None:
    """Print what was found; raises CommandFailed with exit code 3 where the image may not go on."""
    digest = names.digest_of(options.image, api)
    image = api.get(f"images/{digest}/")
    found = tables.by_severity(api.get(f"images/{digest}/findings/")["results"])
    bad = [row for row in found if _stops(row, options)]
    unknown = _unknown(image, found)
    is_stopped = bool(bad) or (bool(unknown) and not options.allow_unknown)
    document = {
        "image": options.image,
        "digest": digest,
        "fail_on": options.fail_on,
        "fixable": options.fixable,
        "passed": not is_stopped,
        "findings": bad,
        "unknown": unknown,
    }
    if options.summary is not None:
        _append(options.summary, _markdown(document))
    if options.json:
        print(json.dumps(document))
    elif bad:
        tables.print_table(bad, _COLUMNS)
    if is_stopped:
        reasons = [f"{len(bad)} findings of severity {options.fail_on} or worse"] if bad else []
        reasons += [] if options.allow_unknown else [f"unknown: {text}" for text in unknown]
        raise CommandFailed(f"{options.image} does not pass: {'; '.join(reasons)}.", client.EXIT_POLICY)
    if not options.json:
        print(f"{tables.plain(options.image)} passes: no finding of severity {options.fail_on} or worse.")


def _stops(row: dict[str, Any], options: argparse.Namespace) -> bool:
    is_bad = row["severity"] in _LEVELS[: _LEVELS.index(options.fail_on) + 1]
    return row["state"] == "open" and is_bad and (bool(row["fixed_version"]) or not options.fixable)


def _unknown(image: dict[str, Any], found: list[dict[str, Any]]) -> list[str]:
    """Return what nobody knows of the image, as phrases. Unknown is not a pass."""
    known = image["findings"]
    texts = [known["why"]] if known["why"] else []
    nameless = sum(row["state"] == "open" and row["severity"] == "unknown" for row in found)
    return texts + ([f"{nameless} findings without a severity"] if nameless else [])


def _markdown(document: dict[str, Any]) -> str:
    verdict = "passes" if document["passed"] else "does not pass"
    lines = [f"### {_cell(document['image'])} {verdict}", "", f"`{document['digest']}`", ""]
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
