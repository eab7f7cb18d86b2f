"""`gravingdock access`: what an account has, access requests, and access as code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from lifecycle.cli import names, tables
from lifecycle.cli.client import EXIT_ERROR, EXIT_USAGE, Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows, say
from lifecycle.cli.tables import Column

REQUESTS: Final[Sequence[Column]] = (
    ("REQUEST", lambda row: f"AR-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("PERSON", lambda row: row["requester"]),
    ("ROLE", lambda row: row["role"]),
    ("TEAM", lambda row: row["team"]),
    ("REPOSITORIES", lambda row: row["repository_pattern"]),
    ("ENVIRONMENT", lambda row: row["environment"] or "all"),
    ("DAYS", lambda row: row["days"]),
)
RIGHTS: Final[Sequence[Column]] = (
    ("TEAM", lambda row: row["team"] or "every team"),
    ("REPOSITORIES", lambda row: row["repositories"]),
    ("ENVIRONMENT", lambda row: row["environment"] or "all"),
    ("VERBS", lambda row: " ".join(row["verbs"])),
    ("FROM", lambda row: row["origin"]),
    ("EXPIRES", lambda row: row["expires_at"] or "never"),
)


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `access` with its commands."""
    area = areas.add_parser("access", help="see who can do what, and ask for a role").add_subparsers(
        required=True, metavar="COMMAND"
    )
    show = area.add_parser("show", parents=[shared], help="show what an account has now, and where it comes from")
    show.add_argument(
        "who", nargs="?", default="", metavar="NAME", help="a person, or a robot as team+name; default: you"
    )
    show.set_defaults(run=run_show)
    explain = area.add_parser("explain", parents=[shared], help="say why an account can or cannot do something")
    explain.add_argument("who", metavar="NAME", help="a person, or a robot as team+name")
    explain.add_argument("verb", help="for example promotion.approve")
    explain.add_argument("--team", required=True, help="short name of the team")
    explain.add_argument("--repository", default="", help="for example shop/api; default: the whole team")
    explain.add_argument("--environment", default="", help="short name of an environment")
    explain.set_defaults(run=run_explain)
    ask = area.add_parser("ask", parents=[shared], help="ask the owners of a team for a role")
    ask.add_argument("role", help="for example approver")
    ask.add_argument("--team", required=True, help="short name of the team")
    ask.add_argument("--repositories", default="*", metavar="PATTERN", help="for example shop/*; default: all")
    ask.add_argument("--environment", default="", help="short name of an environment; default: all")
    ask.add_argument("--days", type=int, default=30, help="for how many days (default %(default)s)")
    ask.add_argument("--reason", required=True, help="what you need it for")
    ask.set_defaults(run=run_ask)
    listing = area.add_parser("requests", parents=[limited], help="list the requests that you made or decide about")
    listing.add_argument("--state", choices=("open", "granted", "declined", "withdrawn"), help="only these")
    listing.set_defaults(run=run_requests)
    grant = area.add_parser("grant", parents=[shared], help="grant the role of a request until a date")
    grant.add_argument("number", metavar="REQUEST", help="number of the request, with or without AR-")
    grant.add_argument("--days", type=int, help="default: as asked")
    grant.set_defaults(run=run_grant)
    decline = area.add_parser("decline", parents=[shared], help="decline a request")
    decline.add_argument("number", metavar="REQUEST", help="number of the request, with or without AR-")
    decline.add_argument("--comment", required=True, help="the person reads it")
    decline.set_defaults(run=run_decline)
    _add_file(area, shared)
    withdraw = area.add_parser("withdraw", parents=[shared], help="take back your own request")
    withdraw.add_argument("number", metavar="REQUEST", help="number of the request, with or without AR-")
    withdraw.set_defaults(run=run_withdraw)


def _add_file(area: Any, shared: argparse.ArgumentParser) -> None:
    export = area.add_parser("export", parents=[shared], help="print who can do what as an access file")
    export.add_argument(
        "--team", action="append", default=[], help="only this team; repeatable; default: those you manage"
    )
    export.set_defaults(run=run_export)
    diff = area.add_parser(
        "diff", parents=[shared], help="show what an access file would change; exit 1 when it differs"
    )
    diff.add_argument("-f", "--file", required=True, help="access file, YAML or JSON; - for standard input")
    diff.set_defaults(run=run_diff)
    apply = area.add_parser(
        "apply", parents=[shared], help="apply an access file; without --yes, only show what it would do"
    )
    apply.add_argument("-f", "--file", required=True, help="access file, YAML or JSON; - for standard input")
    apply.add_argument("--yes", action="store_true", help="change what the comparison shows")
    apply.add_argument("--remove", action="store_true", help="also remove what is not in the file")
    apply.set_defaults(run=run_apply)
    area.add_parser("schema", help="print the JSON Schema of access files, for editors").set_defaults(run=run_schema)


def run_show(options: argparse.Namespace, api: Api) -> None:
    found = api.get("access/effective/", **({"who": options.who} if options.who else {}))
    if options.json:
        print(json.dumps(found))
        return
    if found["nothing"]:
        say(f"{found['username']} has no rights: {found['nothing']}")
        return
    print_rows(found["rights"], RIGHTS, options)


def run_explain(options: argparse.Namespace, api: Api) -> None:
    """Print the answer. Exit code 1 if the account cannot do it, so that scripts can ask."""
    query = {
        "who": options.who,
        "verb": options.verb,
        "repository": options.repository,
        "environment": options.environment,
    }
    answer = api.get(f"teams/{options.team}/explain/", **{name: value for name, value in query.items() if value})
    if options.json:
        print(json.dumps(answer))
    else:
        print(tables.plain(answer["sentence"]))
        for step in answer["steps"]:
            mark = {True: "+", False: "-", None: " "}[step["is_met"]]
            print(tables.plain(f"  {mark} {step['text']}"))
        for change in answer["changes"]:
            print(tables.plain(f"  > {change}"))
    if not answer["is_allowed"]:
        raise CommandFailed(f"Who can grant access: {', '.join(answer['granters'])}", EXIT_ERROR)


def run_ask(options: argparse.Namespace, api: Api) -> None:
    body = {
        "team": options.team,
        "role": options.role,
        "repository_pattern": options.repositories,
        "environment": options.environment,
        "days": options.days,
        "reason": options.reason,
    }
    print_fields(api.post("access-requests/", body), options)


def run_requests(options: argparse.Namespace, api: Api) -> None:
    query = {"state": options.state} if options.state else {}
    print_rows(api.rows("access-requests/", most=options.limit, **query), REQUESTS, options)


def run_grant(options: argparse.Namespace, api: Api) -> None:
    body = {"days": options.days} if options.days is not None else {}
    print_fields(api.post(f"access-requests/{_number(options)}/grant/", body), options)


def run_decline(options: argparse.Namespace, api: Api) -> None:
    print_fields(api.post(f"access-requests/{_number(options)}/decline/", {"comment": options.comment}), options)


def run_withdraw(options: argparse.Namespace, api: Api) -> None:
    print_fields(api.post(f"access-requests/{_number(options)}/withdraw/", {}), options)


def run_export(options: argparse.Namespace, api: Api) -> None:
    query: dict[str, Any] = {"team": options.team} if options.team else {}
    document = api.get("access/file/", **query)
    if options.json:
        print(json.dumps(document))
    else:
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), end="")


def run_schema(options: argparse.Namespace, api: Api) -> None:
    print(json.dumps(api.get("access/file/schema/"), indent=2))


def run_diff(options: argparse.Namespace, api: Api) -> None:
    plan = api.post("access/file/diff/", {"text": _text_of(options.file)})
    if options.json:
        print(json.dumps(plan))
    else:
        _print_changes(plan["changes"])
    if plan["changes"]:
        raise CommandFailed(f"{len(plan['changes'])} differences.", EXIT_ERROR)


def run_apply(options: argparse.Namespace, api: Api) -> None:
    """Compare, show, and with --yes apply just what was shown."""
    text = _text_of(options.file)
    plan = api.post("access/file/diff/", {"text": text})
    if not options.yes:
        print(json.dumps(plan)) if options.json else _print_changes(plan["changes"])
        if plan["changes"]:
            say("Nothing is changed yet. Repeat with --yes, and with --remove for what is marked -.")
        return
    done = api.post("access/file/apply/", {"text": text, "remove": options.remove}, etag=plan["etag"])
    if options.json:
        print(json.dumps(done))
        return
    _print_changes(done["done"])
    if done["kept"]:
        say(f"Kept, although not in the file: {len(done['kept'])}. Remove with --remove.")


def _print_changes(changes: list[dict[str, Any]]) -> None:
    marks = {"add": "+", "change": "~", "remove": "-"}
    for change in changes:
        print(tables.plain(f"{marks[change['act']]} {change['what']}"))
        if change["act"] == "change":
            print(tables.plain(f"    {json.dumps(change['before'])} -> {json.dumps(change['after'])}"))


def _text_of(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"Cannot read {name}: {error}", EXIT_USAGE) from None


def _number(options: argparse.Namespace) -> str:
    return names.number_of(options.number, "AR-", "an access request")
