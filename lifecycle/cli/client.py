"""Client of `/api/v1/` for the command line: the stored login, the requests, and errors as exit codes."""

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
EXIT_POLICY: Final = 3  # refused by the policy
EXIT_NOT_AUTHENTICATED: Final = 4
EXIT_TIMED_OUT: Final = 5
TIMEOUT_S: Final = 30.0
DOCUMENT_TIMEOUT_S: Final = 180.0
PAGE: Final = 200  # rows per request, the maximum of the API


class CommandFailed(Exception):
    """Ends the command with `exit_code`. The message goes to standard error; `status` is the HTTP status, if any."""

    def __init__(self, message: str, exit_code: int = EXIT_ERROR, *, status: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.status = status


class Unreachable(CommandFailed):
    """The server did not respond, or failed with a 5xx status. A waiting command can send the request again."""


@dataclass(frozen=True, slots=True)
class Login:
    """Address of the server, and the user's token."""

    url: str
    token: str


def login_file() -> Path:
    """Return the path of the stored login (XDG Base Directory: `$XDG_CONFIG_HOME`, else `~/.config`)."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "gravingdock" / "login.json"


def checked_url(text: str) -> str:
    """Return the server's address without a trailing slash; raises CommandFailed (usage) if it is not safe for a token.

    Plain http is accepted only for this machine.
    """
    parts = urlsplit(text)
    is_local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise CommandFailed("Invalid address. Use https://host[:port].", EXIT_USAGE)
    if parts.scheme == "http" and not is_local:
        raise CommandFailed("Plain http would expose your token. Use the https address.", EXIT_USAGE)
    return text.rstrip("/")


def save_login(login: Login) -> Path:
    """Store the login in a file that only its owner can read, and return its path."""
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The new file has its mode from the start and is then moved into place. So other users can never read it, and it
    # is never half written.
    partial = path.with_name(f".login-{uuid.uuid4().hex}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"url": login.url, "token": login.token}, file)
    partial.replace(path)
    return path


def stored_login() -> Login:
    """Return the stored login; raises CommandFailed (not authenticated) without one."""
    try:
        stored = json.loads(login_file().read_text())
        return Login(url=stored["url"], token=stored["token"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CommandFailed(
            "You are not signed in. Run: gravingdock auth login --url https://host", EXIT_NOT_AUTHENTICATED
        ) from None


class Api:
    """`/api/v1/` of one server. Redirects are not followed, so the token is sent only to the given server."""

    def __init__(self, login: Login, *, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=f"{login.url}/api/v1/",
            headers={"Authorization": f"Bearer {login.token}", "Accept": "application/json"},
            timeout=TIMEOUT_S,
            transport=transport,
        )

    def get(self, path: str, **query: str | list[str]) -> dict[str, Any]:
        """Return one document; raises CommandFailed."""
        return self._send("GET", path, params=query)

    def post(self, path: str, body: dict[str, Any] | None = None, *, etag: str = "") -> dict[str, Any]:
        """Send a POST and return the result; raises CommandFailed. `etag` is the version that it was made for."""
        return self._send("POST", path, json=body or {}, headers={"If-Match": etag} if etag else {})

    def post_document(self, path: str, content: bytes, *, encoding: str = "") -> dict[str, Any]:
        """Send a document as it is and return the result; raises CommandFailed. A big one takes a while.

        `encoding`: "gzip" when `content` is.
        """
        headers = {"Content-Type": "application/octet-stream"} | ({"Content-Encoding": encoding} if encoding else {})
        return self._send("POST", path, content=content, headers=headers, timeout=DOCUMENT_TIMEOUT_S)

    def upload(self, path: str, content: bytes, fields: dict[str, str]) -> dict[str, Any]:
        """Send a file with the fields of a form and return the result; raises CommandFailed. It can take a while."""
        files = {"file": ("report", content, "application/octet-stream")}
        return self._send("POST", path, data=fields, files=files, timeout=DOCUMENT_TIMEOUT_S)

    def put(self, path: str, body: dict[str, Any], *, etag: str = "") -> dict[str, Any]:
        """Send a PUT and return the stored document; raises CommandFailed. `etag` is the version that it changes."""
        return self._send("PUT", path, json=body, headers={"If-Match": etag} if etag else {})

    def patch(self, path: str, body: dict[str, Any], *, revision: int | None = None) -> dict[str, Any]:
        """Change a document, only at its `revision` if that is given, and return it; raises CommandFailed."""
        headers = {} if revision is None else {"If-Match": f'"{revision}"'}
        return self._send("PATCH", path, json=body, headers=headers)

    def delete(self, path: str, **query: str) -> None:
        """Delete a document; raises CommandFailed."""
        self._send("DELETE", path, params=query)

    def download(self, path: str, **query: str) -> Iterator[bytes]:
        """Yield the parts of a file; raises CommandFailed."""
        try:
            with self._http.stream("GET", path, params=query, headers={"Accept": "*/*"}) as answer:
                if answer.is_success:
                    yield from answer.iter_bytes()
                    return
                answer.read()
                self._document(answer)
        except httpx.HTTPError as error:
            raise Unreachable(f"Cannot reach {self._http.base_url.host}: {error}") from None

    def rows(self, path: str, *, most: int, **query: str) -> Iterator[dict[str, Any]]:
        """Yield up to `most` rows of a list, page by page; raises CommandFailed."""
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
            # Use only the cursor: the address itself could name a host that the user did not give.
            query["cursor"] = httpx.URL(page["next"]).params["cursor"]

    def _send(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **more)
        except httpx.TimeoutException:
            raise Unreachable(
                f"The server did not respond within {more.get('timeout', TIMEOUT_S):.0f} seconds. Try again.",
                EXIT_TIMED_OUT,
            ) from None
        except httpx.HTTPError as error:
            raise Unreachable(f"Cannot reach {self._http.base_url.host}: {error}") from None
        if answer.status_code == httpx.codes.NO_CONTENT:
            return {}
        return self._document(answer)

    @staticmethod
    def _document(answer: httpx.Response) -> dict[str, Any]:
        """Return the JSON object of a response; raises CommandFailed for a problem and for anything else."""
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise CommandFailed(f"Unexpected response ({answer.status_code}). This may not be a Gravingdock server.")
        if answer.is_success:
            return body
        status = answer.status_code
        kind = Unreachable if answer.is_server_error else CommandFailed  # most likely its database restarts
        raise kind(_sentence(body, status), _exit_code(body, status), status=status)


def _exit_code(body: dict[str, Any], status: int) -> int:
    if status == httpx.codes.UNAUTHORIZED:
        return EXIT_NOT_AUTHENTICATED
    return EXIT_POLICY if body.get("code") == "policy_blocked" else EXIT_ERROR


def _sentence(body: dict[str, Any], status: int) -> str:
    """Return the text of a problem document: its detail, then each field error and each reason on its own line."""
    lines = [str(body.get("detail") or f"The server responded with {status}.")]
    lines += [f"  {error.get('pointer')}: {error.get('detail')}" for error in body.get("errors") or []]
    lines += [f"  {reason}" for reason in (body.get("details") or {}).get("reasons") or []]
    return "\n".join(lines)
