"""`gravingdock trust-rule`: by which identity tokens CI jobs become a robot, without a stored secret."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import client, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: str(row["id"])),
    ("NAME", lambda row: row["name"]),
    ("ISSUER", lambda row: row["issuer"]),
    ("AUDIENCE", lambda row: row["audience"]),
    ("CLAIMS", lambda row: ", ".join(f"{name}={value}" for name, value in sorted(row["claims"].items()))),
    ("MADE BY", lambda row: row["made_by"]),
    ("LAST USE", lambda row: row["used_at"] or "never"),
)
CHECK_COLUMNS: Final[Sequence[Column]] = (
    ("CLAIM", lambda row: row["claim"]),
    ("RULE", lambda row: row["pattern"]),
    ("TOKEN", lambda row: row["found"] or "-"),
    ("HOLDS", lambda row: "yes" if row["holds"] else "no"),
)
_ROBOTS_MAX: Final = 1000


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `trust-rule` with its commands."""
    area = areas.add_parser("trust-rule", help="let CI jobs become a robot, without a stored secret").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = area.add_parser("list", parents=[limited], help="list the rules of a robot")
    create = area.add_parser("create", parents=[shared], help="create a rule of a robot")
    end = area.add_parser("end", parents=[shared], help="end a rule, and revoke the tokens that jobs got by it")
    trial = area.add_parser(
        "try", parents=[shared], help="say whether a rule accepts an identity token, read from standard input"
    )
    for command in (listing, create, end, trial):
        command.add_argument("robot", metavar="ROBOT", help="user name of the robot, for example shop+ci")
    for command in (end, trial):
        command.add_argument("rule", type=int, metavar="ID", help="number of the rule")
    create.add_argument("--name", required=True, help="what the rule is for")
    create.add_argument("--issuer", required=True, help="address of the issuer, exactly as in the tokens")
    create.add_argument("--audience", default="", help="default: the address of Gravingdock")
    create.add_argument(
        "--claim", action="append", required=True, metavar="NAME=PATTERN", help="for example repository=acme/shop"
    )
    listing.set_defaults(run=list_rules)
    create.set_defaults(run=create_rule)
    end.set_defaults(run=end_rule)
    trial.set_defaults(run=try_rule)


def list_rules(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows(_rules(options, api), most=options.limit), COLUMNS, options)


def create_rule(options: argparse.Namespace, api: Api) -> None:
    claims = {}
    for given in options.claim:
        name, equals, pattern = given.partition("=")
        if not equals:
            raise CommandFailed(f"Write a claim as NAME=PATTERN, not {given}.", client.EXIT_USAGE)
        claims[name] = pattern
    body = {"name": options.name, "issuer": options.issuer, "audience": options.audience, "claims": claims}
    print_fields(api.post(_rules(options, api), body), options)


def end_rule(options: argparse.Namespace, api: Api) -> None:
    api.delete(f"{_rules(options, api)}{options.rule}/")
    print(tables.plain("Ended. Tokens that jobs got by the rule are revoked."), file=sys.stderr)


def try_rule(options: argparse.Namespace, api: Api) -> None:
    """Exit with 3 unless the rule accepts the token."""
    text = sys.stdin.read().strip()
    if not text:
        raise CommandFailed("Pass the identity token on standard input.", client.EXIT_USAGE)
    found = api.post(f"{_rules(options, api)}{options.rule}/try/", {"token": text})
    if options.json:
        print(json.dumps(found))
    else:
        print_rows(found["checks"], CHECK_COLUMNS, options)
        print(tables.plain("Accepted." if found["is_accepted"] else found["reason"]), file=sys.stderr)
    if not found["is_accepted"]:
        raise SystemExit(client.EXIT_POLICY)


def _rules(options: argparse.Namespace, api: Api) -> str:
    """Return the path of the rules of a robot; raises CommandFailed for an unknown one."""
    team, plus, _ = options.robot.partition("+")
    if plus:
        for row in api.rows(f"teams/{team}/robots/", most=_ROBOTS_MAX):
            if row["username"] == options.robot:
                return f"teams/{team}/robots/{row['id']}/trust-rules/"
    raise CommandFailed(f"Robot {options.robot} not found, or you don't have access.", client.EXIT_ERROR)
