"""`gravingdock credential-helper`, also installed as `docker-credential-gravingdock`.

Docker, Podman, Buildah and skopeo ask it for the password of our registry, in place of a copy of the token in their own
file. It speaks their protocol: one word as the argument, a server or JSON on standard input, JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

import httpx

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed

# The clients compare this text; only then do they go on without a password.
NOT_FOUND: Final = "credentials not found in native keychain"
ACTIONS: Final = ("get", "store", "erase", "list", "version")
_INPUT_MAX: Final = 64 * 1024  # characters


def add_command(areas: Any) -> None:
    """Add the command to the subparsers of the program."""
    command = areas.add_parser(
        "credential-helper", help="give Docker, Podman and others the password of the registry, from your login"
    )
    command.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    command.set_defaults(run=answer)


def answer(options: argparse.Namespace, transport: httpx.BaseTransport | None) -> None:
    """Answer one question of a client. Problems are printed for it on standard output, as the protocol wants."""
    try:
        found = _answer(options.action, transport)
    except CommandFailed as error:
        print(error)
        raise CommandFailed("", error.exit_code) from None
    if found is not None:
        print(json.dumps(found))


def _answer(action: str, transport: httpx.BaseTransport | None) -> dict[str, str] | None:
    if action == "version":
        return {"Name": "gravingdock", "Version": "1"}
    given = "" if action == "list" else sys.stdin.read(_INPUT_MAX).strip()
    login = _login()
    if login is None:
        if action in {"erase", "list"}:
            return {} if action == "list" else None
        raise CommandFailed(NOT_FOUND)
    me = Api(login, transport=transport).get("me/")
    if action == "list":
        return {me["registry"]: me["username"]}
    server = json.loads(given).get("ServerURL", "") if action == "store" else given
    is_ours = _host(server) == me["registry"]
    if action == "erase":
        return None  # `gravingdock auth login` replaces the login; a client never does
    if action == "store":
        if is_ours and json.loads(given).get("Secret") == login.token:
            return None
        raise CommandFailed("Gravingdock stores no other password. Sign in with: gravingdock auth login")
    if not is_ours:
        raise CommandFailed(NOT_FOUND)  # the token goes to no other registry
    return {"ServerURL": server, "Username": me["username"], "Secret": login.token}


def _login() -> client.Login | None:
    try:
        return client.stored_login()
    except CommandFailed:
        return None


def _host(server: str) -> str:
    """Return `host[:port]` of what clients name a server: with or without scheme and path."""
    return server.partition("://")[2].partition("/")[0] if "://" in server else server.partition("/")[0]
