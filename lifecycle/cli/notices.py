"""`gravingdock notice` and `gravingdock channel`: read what you were told, and manage webhooks and chats."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from lifecycle.cli import client, tables
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

NOTICE_COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("TOLD", lambda row: tables.moment(row["at"])),
    ("READ", lambda row: tables.moment(row["read_at"]) or "no"),
    ("TOPIC", lambda row: row["topic"]),
    ("ABOUT", lambda row: row["subject"]),
    ("NOTICE", lambda row: row["text"]),
)
CHANNEL_COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("NAME", lambda row: row["name"]),
    ("TEAM", lambda row: row["team"] or "all teams"),
    ("KIND", lambda row: row["kind"]),
    ("TO", lambda row: row["host"]),
    ("STATE", lambda row: "on" if row["is_enabled"] else f"off: {row['disabled_reason']}"),
    ("TOPICS", lambda row: ", ".join(row["topics"])),
)
MESSAGE_COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("CREATED", lambda row: tables.moment(row["created_at"])),
    ("STATE", lambda row: row["state"]),
    ("STATUS", lambda row: row["last_status"]),
    ("ATTEMPTS", lambda row: row["attempts"]),
    ("SUBJECT", lambda row: row["subject"]),
    ("ERROR", lambda row: row["last_error"]),
)


def add_areas(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the areas `notice` and `channel` with their commands."""
    notice = areas.add_parser("notice", help="read what you were told").add_subparsers(required=True, metavar="COMMAND")
    listing = notice.add_parser("list", parents=[limited], help="list your notices, newest first")
    listing.add_argument("--unread", action="store_true", help="only unread notices")
    listing.set_defaults(run=list_notices)
    read = notice.add_parser("read", parents=[shared], help="mark notices as read")
    read.add_argument("ids", metavar="ID", type=int, nargs="*", help="numbers of notices")
    read.add_argument("--all", action="store_true", help="mark all of them")
    read.set_defaults(run=read_notices)

    channel = areas.add_parser("channel", help="send notices of a team to webhooks and chats").add_subparsers(
        required=True, metavar="COMMAND"
    )
    channel.add_parser("list", parents=[limited], help="list the channels you can manage").set_defaults(
        run=list_channels
    )
    create = channel.add_parser("create", parents=[shared], help="create a channel; its address is read from a prompt,"
                                " standard input or $GRAVINGDOCK_CHANNEL_ADDRESS")  # fmt: skip
    create.add_argument("name", help="name of the channel")
    create.add_argument("--team", default="", help="slug of the team; without it, notices of all teams (admins)")
    create.add_argument("--kind", choices=("webhook", "chat"), default="webhook", help="default %(default)s")
    create.add_argument("--topic", action="append", required=True, help="topic to send, such as promotion.failed;"
                        " repeat it for more")  # fmt: skip
    create.set_defaults(run=create_channel)
    for name, run, text in (
        ("test", test_channel, "send a test message to a channel"),
        ("deliveries", list_deliveries, "list what was sent to a channel, newest first"),
    ):
        command = channel.add_parser(name, parents=[limited if name == "deliveries" else shared], help=text)
        command.add_argument("channel", help="name of the channel, or its number")
        command.set_defaults(run=run)
    again = channel.add_parser("redeliver", parents=[shared], help="send a message again, with the same id")
    again.add_argument("message", metavar="ID", type=int, help="number of the message, as deliveries lists it")
    again.set_defaults(run=redeliver)


def list_notices(options: argparse.Namespace, api: Api) -> None:
    query = {"state": "unread"} if options.unread else {}
    print_rows(api.rows("notices/", most=options.limit, **query), NOTICE_COLUMNS, options)


def read_notices(options: argparse.Namespace, api: Api) -> None:
    """Mark the given notices as read, or all of them."""
    if bool(options.ids) == options.all:
        raise CommandFailed("Give the numbers of notices, or --all.", client.EXIT_USAGE)
    if options.all:
        count = api.post("notices/read-all/")["read"]
    else:
        for number in options.ids:
            api.post(f"notices/{number}/read/")
        count = len(options.ids)
    if options.json:
        print(json.dumps({"read": count}))
    else:
        print(f"Marked as read: {count}.")


def list_channels(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("channels/", most=options.limit), CHANNEL_COLUMNS, options)


def create_channel(options: argparse.Namespace, api: Api) -> None:
    """Create a channel. Its address is no argument, because other users of the machine see arguments."""
    body = {
        "team": options.team,
        "name": options.name,
        "kind": options.kind,
        "address": _address(),
        "topics": options.topic,
    }
    made = api.post("channels/", body)
    if options.json:
        print(json.dumps(made))
        return
    print(f"Created channel {made['id']}: {made['kind']} to {made['host']}.")
    if made["secret"]:
        print(f"Secret, shown once: {made['secret']}")


def _address() -> str:
    if given := os.environ.get("GRAVINGDOCK_CHANNEL_ADDRESS"):
        return given
    if sys.stdin.isatty():
        print("Address: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def test_channel(options: argparse.Namespace, api: Api) -> None:
    """Queue a test message, and say how to see what became of it."""
    number = _find(options.channel, api)
    message = api.post(f"channels/{number}/test/")
    if options.json:
        print(json.dumps(message))
    else:
        print(f"Test message {message['id']} is on its way. See: gravingdock channel deliveries {number}")


def list_deliveries(options: argparse.Namespace, api: Api) -> None:
    number = _find(options.channel, api)
    print_rows(api.rows("messages/", most=options.limit, channel=str(number)), MESSAGE_COLUMNS, options)


def redeliver(options: argparse.Namespace, api: Api) -> None:
    message = api.post(f"messages/{options.message}/redeliver/")
    print(json.dumps(message) if options.json else f"Message {message['id']} is sent again.")


def _find(text: str, api: Api) -> int:
    """Return the number of a channel, by number or by name; raises CommandFailed."""
    if text.isascii() and text.isdigit():
        return int(text)
    found = [row for row in api.rows("channels/", most=sys.maxsize) if row["name"] == text]
    if len(found) > 1:
        raise CommandFailed(f"Several channels are named {text}. Give the number of one.")
    if not found:
        raise CommandFailed(f"No channel {text}, or you don't have access.")
    return int(found[0]["id"])
