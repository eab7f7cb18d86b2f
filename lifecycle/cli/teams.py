"""`gravingdock team`: move the repositories of a team to another one."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from lifecycle.cli import tables
from lifecycle.cli.client import EXIT_USAGE, Api, CommandFailed


def add_team(areas: Any, shared: argparse.ArgumentParser) -> None:
    """Add the area and its commands to the subparsers of the program."""
    area = areas.add_parser("team", help="move repositories to another team")
    commands = area.add_subparsers(required=True, metavar="COMMAND")
    move = commands.add_parser("move", parents=[shared], help="move repositories to another team; all or none of them")
    move.add_argument("team", metavar="TEAM", help="short name of the team that has the repositories")
    move.add_argument("repositories", metavar="REPOSITORY", nargs="*", help="for example shop/api")
    move.add_argument("--to", required=True, metavar="TEAM", help="short name of the other team")
    move.add_argument("--all", action="store_true", help="move all repositories of the team")
    move.set_defaults(run=move_repositories)


def move_repositories(options: argparse.Namespace, api: Api) -> None:
    if bool(options.repositories) == options.all:
        raise CommandFailed("Name the repositories to move, or use --all.", EXIT_USAGE)
    body = {"to": options.to, "repositories": options.repositories}
    moved = api.post(f"teams/{options.team}/move-repositories/", body)
    if options.json:
        print(json.dumps(moved))
        return
    for name in moved["repositories"]:
        print(tables.plain(name))
    print(tables.plain(f"Moved to {moved['team']}."), file=sys.stderr)
