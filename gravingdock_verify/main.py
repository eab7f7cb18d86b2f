"""The command: what it reads, and what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

from gravingdock_verify.checking import Checker, Expected, Result
from gravingdock_verify.exports import BadExport, Export
from gravingdock_verify.notes import BadNote, Key

GOOD, BAD, UNUSABLE, RESTORED = 0, 1, 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Check an export; return 0 when all is right, 1 when something is wrong, 2 when it cannot be checked.

    3 when all is what was sealed, but a restore lost entries and the reader did not say that they know of it.
    """
    parser = argparse.ArgumentParser(
        prog="gravingdock-verify",
        description="Check an export of Gravingdock's audit log offline. It needs no server and no network.",
    )
    parser.add_argument("export", type=Path, help="file of `gravingdock audit export`")
    parser.add_argument("--key", type=Path, action="append", default=[], help="file with the key you trust (/log/key)")
    parser.add_argument(
        "--trust-export-key",
        action="store_true",
        help="trust the key in the export: this shows damage, but not who signed it",
    )
    parser.add_argument(
        "--older", type=Path, action="append", default=[], help="file with a checkpoint that you kept; can be repeated"
    )
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--whole", action="store_true", help="fail unless it has each entry of each log")
    wanted.add_argument(
        "--subject",
        nargs=2,
        metavar=("KIND", "ID"),
        help="fail unless it has all entries about a subject up to its last one: image sha256:..., request 13, team 3,"
        " person person-8c41..., environment 3/production",
    )
    wanted.add_argument(
        "--days",
        nargs=2,
        type=_day,
        metavar=("FIRST", "LAST"),
        help="fail unless it has all entries of these days in UTC, such as 2026-11-01 2026-11-30",
    )
    parser.add_argument(
        "--known-restore",
        action="append",
        default=[],
        metavar="LOG",
        help="name of a log, such as dock.example.com/audit/2, of which you know that it began after a restore",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    chosen = parser.parse_args(arguments)
    if not chosen.key and not chosen.trust_export_key:
        print(
            "gravingdock-verify: Name the key that you trust: --key FILE, from /log/key, kept since before the export."
            " To look only for damage, use --trust-export-key.",
            file=sys.stderr,
        )
        return UNUSABLE
    try:
        keys = [Key.parse(path.read_text(encoding="utf-8")) for path in chosen.key]
        older = [path.read_text(encoding="utf-8") for path in chosen.older]
        expected = Expected(
            is_whole=chosen.whole,
            subject=(chosen.subject[0], chosen.subject[1]) if chosen.subject else None,
            days=(chosen.days[0], chosen.days[1]) if chosen.days else None,
        )
        result = Checker(Export(chosen.export), keys=keys, older=older, expected=expected).run()
    except (BadExport, BadNote, OSError, UnicodeDecodeError) as problem:
        print(f"gravingdock-verify: {problem}", file=sys.stderr)
        return UNUSABLE
    if chosen.json:
        print(json.dumps(_as_json(result), indent=2))
    else:
        _print(result)
    if result.problems:
        return BAD
    return RESTORED if set(result.restores) - set(chosen.known_restore) else GOOD


def _day(text: str) -> str:
    """Return a day as entries spell it; raises ValueError for anything else."""
    return date.fromisoformat(text).isoformat()


def _print(result: Result) -> None:
    for notice in result.notices:
        print(f"note: {notice}")
    for part in result.parts:
        print(f"log: {part}")
    first = result.first()
    if first is None:
        lost = f" Entries were lost before {', '.join(result.restores)} began." if result.restores else ""
        print(f"OK: {result.entries} entries are what was sealed.{lost}")
        if result.is_selection():
            print("    A selection: it says nothing about what is left out.")
        return
    print(f"BAD: {first}")
    for problem in result.problems[:100]:
        if problem is not first:
            print(f"     {problem}")
    if len(result.problems) > 100:
        print(f"     and {len(result.problems) - 100} more")


def _as_json(result: Result) -> dict[str, object]:
    first = result.first()
    return {
        "is_ok": first is None,
        "entries": result.entries,
        "is_selection": result.is_selection(),
        "logs": [asdict(part) for part in result.parts],
        "restores": result.restores,
        "first_bad": {"log": first.origin, "index": first.index, "problem": first.text} if first is not None else None,
        "problems": [{"log": row.origin, "index": row.index, "problem": row.text} for row in result.problems],
        "notices": result.notices,
    }
