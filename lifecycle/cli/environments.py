"""`gravingdock environment`: list, show and change environments."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXCLUSIONS: Final = ("requester", "build-trigger", "committer", "policy-author")
_RULE: Final = re.compile(r"([^=]{1,80})=([0-9]{1,2}):(role|team|people):([^:]{1,400})")
COLUMNS: Final[Sequence[Column]] = (
    ("ENVIRONMENT", lambda row: f"{row['team']}/{row['slug']}"),
    ("POSITION", lambda row: row["position"]),
    ("PRODUCTION", lambda row: "yes" if row["is_production"] else "no"),
    ("APPROVALS", lambda row: row["required_approvals"]),
    ("SOAK", lambda row: _duration(row["soak_s"]) if row["soak_s"] else "none"),
    ("QUEUE", lambda row: row["queue_policy"]),
    ("RUNS BY ITSELF", lambda row: "yes" if row["auto_execute"] else "no"),
)


def add_to(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `environment` with its commands."""
    area = areas.add_parser("environment", help="list and show environments, and change their rules").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = area.add_parser("list", parents=[limited], help="list the environments you can see")
    listing.set_defaults(run=list_environments)
    show = area.add_parser("show", parents=[shared], help="show one environment and its approval rules")
    show.add_argument("environment", metavar="TEAM/ENVIRONMENT", help="for example shop/production")
    show.set_defaults(run=show_environment)
    change = area.add_parser("set", parents=[shared], help="change settings and approval rules of an environment")
    change.add_argument("environment", metavar="TEAM/ENVIRONMENT", help="for example shop/production")
    change.add_argument("--name", help="display name")
    change.add_argument("--position", type=int, help="position on the promotion path; 0 is first")
    change.add_argument("--prefix", help="target prefix; only while nothing was promoted below the present one")
    change.add_argument("--archived", choices=("yes", "no"), help="whether nothing can be promoted to it")
    change.add_argument("--approvals", type=int, help="number of approvals that a promotion needs in all")
    change.add_argument("--production", choices=("yes", "no"), help="whether this is production")
    change.add_argument("--internet-facing", choices=("yes", "no"), help="whether it can be reached from the internet")
    change.add_argument("--approve-within", type=_seconds, metavar="TIME", help="for example 7d")
    change.add_argument("--execute-within", type=_seconds, metavar="TIME", help="for example 24h")
    change.add_argument("--soak", type=_seconds, metavar="TIME", help="time in the previous environment, such as 24h")
    change.add_argument("--queue", choices=("queue", "latest-wins"), help="what happens to older ready requests")
    change.add_argument("--auto-execute", choices=("yes", "no"), help="run ready requests without a user")
    change.add_argument("--registry", metavar="NAME", help="registry to promote to, or managed (admins)")
    change.add_argument("--verification", choices=("none", "manual", "http"), help="what follows the copy")
    change.add_argument("--verify-url", metavar="URL", help="address of the service that verifies promotions")
    change.add_argument("--verify-secret-file", metavar="FILE", help="file with the secret shared with the service")
    change.add_argument("--verify-within", type=_seconds, metavar="TIME", help="for example 1h")
    change.add_argument("--signed-votes", choices=("yes", "no"), help="count only approvals signed with a passkey")
    change.add_argument("--roll-back", choices=("yes", "no"), help="request a rollback when the verification fails")
    change.add_argument("--exclude", action="append", default=[], choices=_EXCLUSIONS, help="they cannot approve")
    change.add_argument("--allow", action="append", default=[], choices=_EXCLUSIONS, help="they can approve")
    change.add_argument(
        "--rule",
        action="append",
        type=_rule,
        metavar="NAME=N:GROUP",
        help="approval rule, such as security=1:role:security, ops=1:team:ops or leads=1:people:kim,lee;"
        " all given rules replace the present ones",
    )
    change.add_argument("--no-rules", action="store_true", help="remove all approval rules")
    change.set_defaults(run=set_environment)


def list_environments(options: argparse.Namespace, api: Api) -> None:
    rows = api.rows("environments/", most=options.limit)
    print_rows(rows, COLUMNS, options)


def show_environment(options: argparse.Namespace, api: Api) -> None:
    _print(api.get(f"environments/{_find(options.environment, api)}/"), options)


def set_environment(options: argparse.Namespace, api: Api) -> None:
    """Change what was given, only if nobody changed the environment since it was read here."""
    number = _find(options.environment, api)
    values = {
        "name": options.name,
        "position": options.position,
        "prefix": options.prefix,
        "is_archived": _truth(options.archived),
        "required_approvals": options.approvals,
        "is_production": _truth(options.production),
        "is_internet_facing": _truth(options.internet_facing),
        "approve_within_s": options.approve_within,
        "execute_within_s": options.execute_within,
        "soak_s": options.soak,
        "queue_policy": options.queue,
        "auto_execute": _truth(options.auto_execute),
        "registry": options.registry,
        "verification": options.verification,
        "verify_url": options.verify_url,
        "verify_secret": _text_of(options.verify_secret_file),
        "verify_within_s": options.verify_within,
        "rolls_back": _truth(options.roll_back),
        "requires_signed_votes": _truth(options.signed_votes),
        "approval_rules": [] if options.no_rules else options.rule,
    }
    values |= {f"excludes_{name.replace('-', '_')}": True for name in options.exclude}
    values |= {f"excludes_{name.replace('-', '_')}": False for name in options.allow}
    body = {name: value for name, value in values.items() if value is not None}
    if not body:
        raise CommandFailed("Give at least one setting to change.", client.EXIT_USAGE)
    revision = api.get(f"environments/{number}/")["revision"]
    _print(api.patch(f"environments/{number}/", body, revision=revision), options)


def _find(text: str, api: Api) -> int:
    team, _, slug = text.partition("/")
    for row in api.rows("environments/", most=sys.maxsize):
        if (row["team"], row["slug"]) == (team, slug):
            return int(row["id"])
    raise CommandFailed(f"No environment {text}, or you don't have access.")


def _print(row: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(row))
        return
    excluded = [name for name in _EXCLUSIONS if row[f"excludes_{name.replace('-', '_')}"]]
    tables.print_pairs(
        [
            ("Environment", f"{row['team']}/{row['slug']} ({row['name']})"),
            ("Position", row["position"]),
            ("Production", "yes" if row["is_production"] else "no"),
            ("Internet-facing", "yes" if row["is_internet_facing"] else "no"),
            ("Registry", row["registry"] or "managed"),
            ("Target prefix", row["prefix"]),
            ("Approvals", row["required_approvals"]),
            ("Rules", "; ".join(_rule_words(rule) for rule in row["approval_rules"]) or "none"),
            ("Cannot approve", ", ".join(excluded) or "nobody is excluded"),
            ("Approve within", _duration(row["approve_within_s"])),
            ("Execute within", _duration(row["execute_within_s"])),
            ("Soak", _duration(row["soak_s"]) if row["soak_s"] else "none"),
            ("Queue", row["queue_policy"]),
            ("Runs by itself", "yes" if row["auto_execute"] else "no"),
            ("After the copy", row["verification"] + (f" ({row['verify_url']})" if row["verify_url"] else "")),
            ("Verify within", _duration(row["verify_within_s"])),
            ("Rolls back", "yes" if row["rolls_back"] else "no"),
            ("Revision", row["revision"]),
            *([("Problem", row["problem"])] if row["problem"] else []),
        ]
    )


def _rule_words(rule: dict[str, Any]) -> str:
    group = f"role {rule['role']}" if rule["role"] else f"team {rule['team']}" if rule["team"] else ""
    return f"{rule['name']}: {rule['required_approvals']} of {group or ', '.join(rule['people'])}"


def _rule(text: str) -> dict[str, Any]:
    match = _RULE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("write a rule as NAME=N:role:ROLE, NAME=N:team:TEAM or NAME=N:people:A,B")
    name, required, kind, group = match.groups()
    rule = {"name": name.strip(), "required_approvals": int(required)}
    return rule | {kind: group.split(",") if kind == "people" else group}


def _text_of(name: str | None) -> str | None:
    return Path(name).read_text("utf-8").strip() if name else None


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError("write a time as 90m, 24h or 7d")
    return int(match[1]) * _UNITS_S[match[2]]


def _duration(seconds: int) -> str:
    unit = next(unit for unit in "dhms" if seconds % _UNITS_S[unit] == 0)
    return f"{seconds // _UNITS_S[unit]}{unit}"


def _truth(word: str | None) -> bool | None:
    return None if word is None else word == "yes"
