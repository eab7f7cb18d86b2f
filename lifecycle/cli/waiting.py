"""Waiting for work on the server: the option `--wait`, and its limit."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import say

POLL_S: Final = 1.0
WAIT_S: Final = 3600  # limit of `--wait` without --timeout


def add_wait(command: argparse.ArgumentParser) -> None:
    """Add `--wait` and `--timeout` to a command."""
    command.add_argument(
        "--wait", action="store_true", help="wait until it finishes; exit 0 only if everything succeeded"
    )
    command.add_argument("--timeout", type=positive, default=WAIT_S, metavar="SECONDS",
                         help="with --wait: exit 5 after this time (default %(default)s)")  # fmt: skip


def wait_until_done(
    path: str,
    now: dict[str, Any],
    under_way: frozenset[str],
    options: argparse.Namespace,
    api: Api,
    *,
    note: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Poll `path` until its state is not in `under_way` or `--timeout` is up; return the last document."""
    until = time.monotonic() + options.timeout
    while True:
        note(now)
        if now["state"] not in under_way or time.monotonic() >= until:
            return now
        time.sleep(POLL_S)
        try:
            now = api.get(path)
        except client.Unreachable as error:  # a restart of the server does not end the work
            say(str(error))


def check_timeout(document: dict[str, Any], under_way: frozenset[str], options: argparse.Namespace) -> None:
    """Raise CommandFailed if the work still goes on, because the time is up."""
    if document["state"] in under_way:
        raise CommandFailed(f"Timed out: still {document['state']} after {options.timeout} s.", client.EXIT_TIMED_OUT)


def positive(text: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return int(text)
