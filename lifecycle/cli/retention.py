"""The area `retention` of the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows, say
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("ACTION", lambda row: row["state"]),
    ("IMAGE", lambda row: f"{row['repository']}@{tables.short(row['digest'])}"),
    ("TAGS", lambda row: ", ".join(row["tags"])),
    ("FREES", lambda row: tables.megabytes(row["freed_bytes"])),
    ("REASONS", lambda row: " ".join(reason["text"] for reason in row["reasons"])),
)


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `retention` with its commands."""
    area = areas.add_parser("retention", help="delete images that nobody needs").add_subparsers(
        required=True, metavar="COMMAND"
    )
    rules = area.add_parser("rules", parents=[shared], help="show the rules of a team or repository, or replace them")
    _add_place(rules)
    rules.add_argument("--keep-last", type=int, metavar="N", help="keep the newest N images with a tag")
    rules.add_argument("--keep-days", type=int, metavar="N", help="keep images pushed or tagged in the last N days")
    rules.add_argument("--tag", action="append", metavar="PATTERN", help="keep images with a tag like this; repeatable")
    rules.add_argument("--untagged-days", type=int, metavar="N", help="delete images without a tag after N days")
    rules.add_argument("--clear", action="store_true", help="remove all rules: nothing is deleted any more")
    rules.set_defaults(run=run_rules)
    plan = area.add_parser("plan", parents=[limited], help="show what would be deleted and kept, and why")
    plan.add_argument("number", nargs="?", metavar="PLAN", help="a plan made before, such as RP-3; else make a new one")
    _add_place(plan, required=False)
    plan.add_argument(
        "--accept-unknown-runtime",
        action="store_true",
        help="delete promoted copies although a cluster has never reported what it runs",
    )
    plan.set_defaults(run=run_plan)
    confirm = area.add_parser("confirm", parents=[shared], help="delete the images of a plan")
    confirm.add_argument("number", metavar="PLAN", help="number of the plan, with or without RP-")
    confirm.set_defaults(run=run_confirm)
    restore = area.add_parser("restore", parents=[shared], help="put back what a plan deleted in the last 7 days")
    restore.add_argument("number", metavar="PLAN", help="number of the plan, with or without RP-")
    restore.add_argument("digests", nargs="*", metavar="DIGEST", help="only these")
    restore.set_defaults(run=run_restore)


def _add_place(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    place = command.add_mutually_exclusive_group(required=required)
    place.add_argument("--team", help="short name of a team: all its repositories")
    place.add_argument("--repository", help="one repository, such as shop/api")


def run_rules(options: argparse.Namespace, api: Api) -> None:
    where = f"teams/{options.team}" if options.team else f"repositories/{names.repository_id(options.repository, api)}"
    path = f"{where}/retention/"
    given = {
        "keep_last": options.keep_last,
        "keep_days": options.keep_days,
        "tags": options.tag,
        "untagged_days": options.untagged_days,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and options.clear:
        raise CommandFailed("Give rules, or --clear.")
    document = api.get(path)
    if given or options.clear:
        document = api.put(path, given, etag=f'"{document["revision"]}"')
    print_fields(document, options)


def run_plan(options: argparse.Namespace, api: Api) -> None:
    if options.number:
        document = api.get(f"retention-plans/{_number(options)}/")
    elif options.team or options.repository:
        body = {"team": options.team} if options.team else {"repository": options.repository}
        document = api.post("retention-plans/", body | {"accept_unknown_runtime": options.accept_unknown_runtime})
    else:
        raise CommandFailed("Give --team or --repository, or the number of a plan.")
    if options.json:
        print(json.dumps(document))
        return
    print_rows(document["digests"][: options.limit], COLUMNS, options)
    say(
        f"RP-{document['id']} ({document['state']}): delete {document['delete_count']},"
        f" keep {document['keep_count']}. The registry's collector can free"
        f" {tables.megabytes(document['freed_bytes'])} of {tables.megabytes(document['deleted_bytes'])}."
    )


def run_confirm(options: argparse.Namespace, api: Api) -> None:
    _print(api.post(f"retention-plans/{_number(options)}/confirm/"), options)


def run_restore(options: argparse.Namespace, api: Api) -> None:
    body = {"digests": options.digests} if options.digests else {}
    _print(api.post(f"retention-plans/{_number(options)}/restore/", body), options)


def _print(document: dict[str, Any], options: argparse.Namespace) -> None:
    if not options.json:
        document.pop("digests", None)
    print_fields(document, options)


def _number(options: argparse.Namespace) -> str:
    return names.number_of(options.number, "RP-", "a retention plan")
