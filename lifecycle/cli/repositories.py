"""`gravingdock repository`: list repositories, and change their description, visibility and archive state."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import names, tables
from lifecycle.cli.client import EXIT_USAGE, Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows, say
from lifecycle.cli.tables import Column

COLUMNS: Final[Sequence[Column]] = (
    ("REPOSITORY", lambda row: row["name"]),
    ("TEAM", lambda row: row["team"]),
    ("VISIBILITY", lambda row: row["visibility"]),
    ("ARCHIVED", lambda row: "yes" if row["archived_at"] else ""),
    ("DESCRIPTION", lambda row: row["description"]),
)


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `repository` with its commands."""
    area = areas.add_parser("repository", help="list repositories, and change their settings").add_subparsers(
        required=True, metavar="COMMAND"
    )
    area.add_parser("list", parents=[limited], help="list the repositories you can see").set_defaults(run=run_list)
    show = area.add_parser("show", parents=[shared], help="show one repository")
    show.add_argument("repository", metavar="REPOSITORY", help="for example shop/api")
    show.set_defaults(run=run_show)
    change = area.add_parser("set", parents=[shared], help="change the settings of a repository")
    change.add_argument("repository", metavar="REPOSITORY", help="for example shop/api")
    change.add_argument("--description", help="what its images are for")
    change.add_argument(
        "--visibility",
        choices=("private", "internal", "public"),
        help="who can see and pull its images: users with a role, every account, or everybody",
    )
    change.set_defaults(run=run_set)
    for name, text in (
        ("archive", "archive a repository: nothing is pushed, rebuilt or promoted any more"),
        ("restore", "restore an archived repository"),
    ):
        command = area.add_parser(name, parents=[shared], help=text)
        command.add_argument("repository", metavar="REPOSITORY", help="for example shop/api")
        command.set_defaults(run=run_archive, archived=name == "archive")
    remove = area.add_parser("delete", parents=[shared], help="delete a repository with its images in the registry")
    remove.add_argument("repository", metavar="REPOSITORY", help="for example shop/old")
    remove.add_argument("--yes", action="store_true", help="confirm: this cannot be undone")
    remove.set_defaults(run=run_delete)


def run_list(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("repositories/", most=options.limit), COLUMNS, options)


def run_show(options: argparse.Namespace, api: Api) -> None:
    print_fields(api.get(_path(options, api)), options)


def run_set(options: argparse.Namespace, api: Api) -> None:
    body = {
        name: getattr(options, name) for name in ("description", "visibility") if getattr(options, name) is not None
    }
    if not body:
        raise CommandFailed("Name what to change: --description or --visibility.", EXIT_USAGE)
    print_fields(api.patch(_path(options, api), body), options)


def run_archive(options: argparse.Namespace, api: Api) -> None:
    api.patch(_path(options, api), {"archived": options.archived})
    say(f"{tables.plain(options.repository)} is {'archived' if options.archived else 'restored'}.")


def run_delete(options: argparse.Namespace, api: Api) -> None:
    if not options.yes:
        raise CommandFailed(f"This deletes all images of {options.repository}. Repeat with --yes.", EXIT_USAGE)
    api.delete(_path(options, api), name=options.repository)
    say(f"Deleting {options.repository}.")


def _path(options: argparse.Namespace, api: Api) -> str:
    return f"repositories/{names.repository_id(options.repository, api)}/"
