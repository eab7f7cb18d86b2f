"""The command line's side of `/api/v1/`: where the server is, the token, and errors as exit codes."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_POLICY: Final = 3  # the policy says no
EXIT_NOT_AUTHENTICATED: Final = 4
EXIT_TIMED_OUT: Final = 5
TIMEOUT_S: Final = 30.0
PAGE: Final = 200  # rows a request, the most the API gives


class CommandFailed(Exception):
    """Ends the command with `exit_code`; the message goes to standard error. `status` is what the server said."""

    def __init__(self, message: str, exit_code: int = EXIT_ERROR, *, status: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.status = status


class Unreachable(CommandFailed):
    """The server did not answer, or broke while it did: who waits for something may ask again."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where the server is and who asks."""

    url: str
    token: str


def login_file() -> Path:
    """Return where the login is kept (XDG Base Directory: `$XDG_CONFIG_HOME`, else `~/.config`)."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "gravingdock" / "login.json"


def checked_url(text: str) -> str:
    """Return the server's address; raises CommandFailed (usage) unless a token may travel there."""
    parts = urlsplit(text)
    is_local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise CommandFailed("The address looks like https://host[:port].", EXIT_USAGE)
    if parts.scheme == "http" and not is_local:
        raise CommandFailed("A token goes over plain http to this machine only; give the https address.", EXIT_USAGE)
    return text.rstrip("/")


def save_login(login: Login) -> Path:
    """Write the login so that only its owner can read it, and return the file."""
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A new file with its mode from the start, then moved into place: never readable by others, never half written.
    partial = path.with_name(f".login-{uuid.uuid4().hex}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"url": login.url, "token": login.token}, file)
    partial.replace(path)
    return path


def stored_login() -> Login:
    """Return the stored login; raises CommandFailed (not authenticated) when there is none."""
    try:
        stored = json.loads(login_file().read_text())
        return Login(url=stored["url"], token=stored["token"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CommandFailed(
            "Not signed in; run: gravingdock auth login --url https://host", EXIT_NOT_AUTHENTICATED
        ) from None


class Api:
    """`/api/v1/` of one server. Redirects are not followed: a token goes where the user said, nowhere else."""

    def __init__(self, login: Login, *, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=f"{login.url}/api/v1/",
            headers={"Authorization": f"Bearer {login.token}", "Accept": "application/json"},
            timeout=TIMEOUT_S,
            transport=transport,
        )

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return one document; raises CommandFailed."""
        return self._send("GET", path, params=query)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do something and return what came of it; raises CommandFailed."""
        return self._send("POST", path, json=body or {})

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Put something in place and return it; raises CommandFailed."""
        return self._send("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """Remove something; raises CommandFailed."""
        self._send("DELETE", path)

    def rows(self, path: str, *, most: int, **query: str) -> Iterator[dict[str, Any]]:
        """Yield up to `most` rows of a list, page after page; raises CommandFailed."""
        query["limit"] = str(min(most, PAGE))
        while True:
            page = self._send("GET", path, params=query)
            for row in page["results"]:
                yield row
                most -= 1
                if not most:
                    return
            if not page.get("next"):
                return
            # Only the cursor is taken: the address itself may name a host that the user never gave.
            query["cursor"] = httpx.URL(page["next"]).params["cursor"]

    def _send(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **more)
        except httpx.TimeoutException:
            raise Unreachable(f"No answer within {TIMEOUT_S:.0f} seconds.", EXIT_TIMED_OUT) from None
        except httpx.HTTPError as error:
            raise Unreachable(f"Cannot reach {self._http.base_url.host}: {error}") from None
        if answer.status_code == httpx.codes.NO_CONTENT:
            return {}
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise CommandFailed(f"The server answered {answer.status_code}, and not as Gravingdock does.")
        if answer.is_success:
            return body
        status = answer.status_code
        kind = Unreachable if answer.is_server_error else CommandFailed  # its database starts anew, most likely
        raise kind(_sentence(body, status), _exit_code(body, status), status=status)


def _exit_code(body: dict[str, Any], status: int) -> int:
    if status == httpx.codes.UNAUTHORIZED:
        return EXIT_NOT_AUTHENTICATED
    return EXIT_POLICY if body.get("code") == "policy_blocked" else EXIT_ERROR


def _sentence(body: dict[str, Any], status: int) -> str:
    """Return what a problem document says: its detail, then each field's error and each reason on a line."""
    lines = [str(body.get("detail") or f"The server answered {status}.")]
    lines += [f"  {error.get('pointer')}: {error.get('detail')}" for error in body.get("errors") or []]
    lines += [f"  {reason}" for reason in (body.get("details") or {}).get("reasons") or []]
    return "\n".join(lines)
