"""`gravingdock group`: list, create and delete groups of people, and change their members and roles."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("GROUP", lambda row: row["full_name"]),
    ("NAME", lambda row: row["name"]),
    ("MEMBERS", lambda row: str(row["members"])),
    ("FROM", lambda row: "sign-in" if row["source"] == "sso" else "added by hand"),
    ("ROLES", lambda row: str(row["grants"])),
)
MEMBER_COLUMNS: Final[Sequence[Column]] = (
    ("MEMBER", lambda row: row["username"] or row["group"]),
    ("KIND", lambda row: "person" if row["username"] else "group"),
    ("ADDED BY", lambda row: row["added_by"] or ""),
    ("ADDED", lambda row: row["created_at"]),
)


def add_to(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `group` with its commands."""
    area = areas.add_parser("group", help="groups of people and their members").add_subparsers(
        required=True, metavar="COMMAND"
    )
    area.add_parser("list", parents=[limited], help="list the groups that you can see").set_defaults(run=list_groups)
    create = area.add_parser("create", parents=[shared], help="create a group: devs, or shop/devs for a team")
    create.add_argument("group", help="devs for the installation (admins), shop/devs for team shop")
    create.add_argument("--name", default="", help="display name")
    create.add_argument("--from-sign-in", action="store_true", help="its members come from sign-in, by rules")
    create.set_defaults(run=create_group)
    members = area.add_parser("members", parents=[limited], help="list the members of a group")
    members.add_argument("group", help="name of the group: devs, or shop/devs")
    members.set_defaults(run=list_members)
    for name, run, text in (
        ("add", add_member, "add a person, or a group with --group"),
        ("remove", remove_member, "remove a person, or a group with --group"),
    ):
        command = area.add_parser(name, parents=[shared], help=text)
        command.add_argument("group", help="name of the group: devs, or shop/devs")
        command.add_argument("member", help="user name, or name of a group")
        command.add_argument("--group", dest="is_group", action="store_true", help="the member is a group")
        command.set_defaults(run=run)
    delete = area.add_parser("delete", parents=[shared], help="delete a group; its members lose its roles")
    delete.add_argument("group", help="name of the group: devs, or shop/devs")
    delete.set_defaults(run=delete_group)


def list_groups(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("groups/", most=options.limit), COLUMNS, options)


def create_group(options: argparse.Namespace, api: Api) -> None:
    team, _, slug = options.group.rpartition("/")
    source = "sso" if options.from_sign_in else "manual"
    made = api.post("groups/", {"slug": slug, "team": team, "name": options.name, "source": source})
    print(json.dumps(made) if options.json else f"Created group {made['full_name']}.")


def list_members(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows(f"groups/{_find(options.group, api)}/members/", most=options.limit), MEMBER_COLUMNS, options)


def add_member(options: argparse.Namespace, api: Api) -> None:
    body = {"group" if options.is_group else "username": options.member}
    made = api.post(f"groups/{_find(options.group, api)}/members/", body)
    print(json.dumps(made) if options.json else f"Added {options.member} to {options.group}.")


def remove_member(options: argparse.Namespace, api: Api) -> None:
    """Remove a member by name."""
    number = _find(options.group, api)
    for row in api.rows(f"groups/{number}/members/", most=sys.maxsize):
        if row["group" if options.is_group else "username"] == options.member:
            api.delete(f"groups/{number}/members/{row['id']}/")
            break
    else:
        raise CommandFailed(f"{options.member} is not in group {options.group}.")
    print(json.dumps({"removed": row["id"]}) if options.json else f"Removed {options.member} from {options.group}.")


def delete_group(options: argparse.Namespace, api: Api) -> None:
    number = _find(options.group, api)
    api.delete(f"groups/{number}/")
    print(json.dumps({"deleted": number}) if options.json else f"Deleted group {options.group}.")


def _find(name: str, api: Api) -> int:
    for row in api.rows("groups/", most=sys.maxsize):
        if row["full_name"] == name:
            return int(row["id"])
    raise CommandFailed(f"No group {name}. `gravingdock group list` shows those that you can see.")
