"""The area `release` of the command line: release sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import client, names, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_one, print_rows
from lifecycle.cli.tables import Column
from lifecycle.cli.waiting import add_wait, check_timeout, positive, wait_until_done

_OPEN: Final = frozenset({"pending", "unsatisfied", "error", "unmet"})
COLUMNS: Final[Sequence[Column]] = (
    ("SET", lambda row: f"RS-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("ENVIRONMENT", lambda row: row["environment"]),
    ("MEMBERS", lambda row: row["size"]),
    ("REQUESTED BY", lambda row: row["requested_by"]),
    ("CREATED", lambda row: tables.moment(row["created_at"])),
    ("REASON", lambda row: row["reason"]),
)
MEMBER_COLUMNS: Final[Sequence[Column]] = (
    ("PROMOTION", lambda row: f"PR-{row['promotion']}"),
    ("STATE", lambda row: row["state"]),
    ("REPOSITORY", lambda row: row["repository"]),
    ("TAG", lambda row: row["tag"]),
    ("DIGEST", lambda row: tables.short(row["digest"])),
    ("OPEN", lambda row: "; ".join(item["title"] for item in row["requirements"] if item["status"] in _OPEN)),
)
UNDER_WAY: Final = frozenset({"executing", "reverting"})
_DECISIONS: Final = {
    "approve": "approve a release set: one vote on each member",
    "reject": "reject a release set permanently",
    "object": "object to a release set: it waits until you withdraw the objection",
    "withdraw-vote": "take back your own approval or objection",
    "withdraw": "withdraw your own release set",
}


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `release` with its commands."""
    area = areas.add_parser("release", help="promote several repositories as one: all of them, or none").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = area.add_parser("list", parents=[limited], help="list the release sets you can see, newest first")
    listing.add_argument("--state", help="only sets in this state, for example open")
    listing.set_defaults(run=list_sets)
    request = area.add_parser("request", parents=[shared], help="request several images or charts as one")
    request.add_argument(
        "images", metavar="IMAGE", nargs="+", help="REPOSITORY:TAG or REPOSITORY@sha256:..., at least two"
    )
    request.add_argument("--environment", required=True, help="target environment, for example staging")
    request.add_argument("--reason", required=True, help="reason for the request; approvers see it")
    request.set_defaults(run=request_set)
    show = area.add_parser("show", parents=[shared], help="show a release set with its members")
    _add_number(show)
    show.set_defaults(run=show_set)
    for name, text in _DECISIONS.items():
        command = area.add_parser(name, parents=[shared], help=text)
        _add_number(command)
        command.add_argument(
            "--reason", required=name in {"reject", "object"}, default="", help="stored in the audit log"
        )
        command.set_defaults(run=decide, decision=name)
    execute = area.add_parser("execute", parents=[shared], help="run a ready release set")
    _add_number(execute)
    add_wait(execute)
    execute.set_defaults(run=execute_set)


def _add_number(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", type=_number, metavar="SET", help="number of the set, with or without RS-")


def _number(text: str) -> int:
    return positive(text.upper().removeprefix("RS-"))


def list_sets(options: argparse.Namespace, api: Api) -> None:
    query = {"state": options.state} if options.state else {}
    print_rows(api.rows("release-sets/", most=options.limit, **query), COLUMNS, options)


def request_set(options: argparse.Namespace, api: Api) -> None:
    members = []
    for text in options.images:
        repository, tag, digest = names.parts_of(text)
        if not repository or not (tag or digest):
            raise CommandFailed(f"Name a tag or a digest: {text}:1.0, or REPOSITORY@sha256:...", client.EXIT_USAGE)
        members.append({"repository": repository} | ({"digest": digest} if digest else {"tag": tag}))
    body = {"members": members, "environment": options.environment, "reason": options.reason}
    _print(api.post("release-sets/", body), options)


def show_set(options: argparse.Namespace, api: Api) -> None:
    _print(api.get(f"release-sets/{options.id}/"), options)


def decide(options: argparse.Namespace, api: Api) -> None:
    body = {"reason": options.reason} if options.reason else {}
    _print(api.post(f"release-sets/{options.id}/{options.decision}/", body), options)


def execute_set(options: argparse.Namespace, api: Api) -> None:
    """Run the set; with `--wait`, raise CommandFailed unless it succeeded."""
    found = api.post(f"release-sets/{options.id}/execute/")
    if options.wait:
        found = wait_until_done(f"release-sets/{options.id}/", found, UNDER_WAY, options, api)
    _print(found, options)
    if options.wait and found["state"] != "succeeded":
        check_timeout(found, UNDER_WAY, options)
        raise CommandFailed(f"The release set is {found['state']}. {found.get('failure', '')}".strip())


def _print(document: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print_one(document, options)
        return
    shown = {name: value for name, value in document.items() if name != "members" and value not in (None, "", [])}
    print_one(shown, options)
    print_rows(document["members"], MEMBER_COLUMNS, options)
