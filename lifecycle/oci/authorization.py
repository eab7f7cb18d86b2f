"""Authorization of our client at registries, with tokens that we sign or tokens from a challenge's token server."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlencode

import httpx

from accounts.queries import SYSTEM_USERNAME
from lifecycle.core.errors import RegistryRefused, RegistryUnavailable
from lifecycle.core.http import HttpClient, origin, parse_outbound_url
from lifecycle.oci import signing
from lifecycle.oci.client import CredentialsRefused
from lifecycle.oci.constants import ERROR_MAX_BYTES
from lifecycle.oci.scopes import Scope

_TOKEN_MAX_BYTES: Final = 256 * 1024
_DEFAULT_LIFE_S: Final = 60  # token specification: a missing expires_in means 60
_EARLY_S: Final = 10  # a token is not used in its last 10 seconds
# RFC 9110 auth-param: name = token or quoted string; a quoted string can contain commas.
_PARAMETER: Final = re.compile(r'([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
# Registries with a token server on another host, from the documentation of their owners.
_KNOWN_REALM_HOSTS: Final = {
    "registry-1.docker.io": "auth.docker.io",
    "index.docker.io": "auth.docker.io",
    "docker.io": "auth.docker.io",
    "registry.gitlab.com": "gitlab.com",
}


class Authorizer(Protocol):
    """Provides the `Authorization` header of requests."""

    def header(self, scopes: Sequence[Scope]) -> str | None:
        """Return the header for the first request, or None to send none."""

    def answer_challenge(self, headers: httpx.Headers, scopes: Sequence[Scope]) -> str | None:
        """Return the header for a second request after a 401, or None when a second request cannot help."""


class SelfIssued:
    """Signs our own tokens for the managed registry, because we are its token service."""

    def __init__(self) -> None:
        self._cache: dict[tuple[str, ...], tuple[str, float]] = {}

    def header(self, scopes: Sequence[Scope]) -> str | None:
        key = tuple(map(str, scopes))
        cached = self._cache.get(key)
        if cached is None or cached[1] < time.time():
            token = signing.sign(SYSTEM_USERNAME, scopes)
            if len(self._cache) > 500:
                self._cache.clear()
            self._cache[key] = cached = (f"Bearer {token.text}", token.issued_at + token.expires_in - 60)
        return cached[0]

    def answer_challenge(self, headers: httpx.Headers, scopes: Sequence[Scope]) -> str | None:
        if self._cache.pop(tuple(map(str, scopes)), None) is None:
            return None
        return self.header(scopes)  # one new token, because the clock or the key may have changed


@dataclass(frozen=True, slots=True)
class Challenge:
    """One `WWW-Authenticate` header; `scheme` in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """Return the challenges in these `WWW-Authenticate` headers, each with its readable parameters."""
    challenges = []
    for value in values:
        scheme, _, rest = value.strip()[:8192].partition(" ")
        parameters = {
            match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            for match in _PARAMETER.finditer(rest)
        }
        challenges.append(Challenge(scheme.lower(), parameters))
    return challenges


class Challenged:
    """For other registries: anonymous until challenged, then with a token from the realm, or with Basic.

    Credentials are sent only to the registry's own host, or to the realm host in its owner's documentation. The
    challenge itself is untrusted and could name any host.
    """

    def __init__(self, http: HttpClient, endpoint: str, username: str, password: str) -> None:
        self._http = http
        self._endpoint = parse_outbound_url(endpoint)
        self._basic = base64.b64encode(f"{username}:{password}".encode()).decode("ascii") if username else ""
        self._cache: dict[tuple[str, ...], tuple[str, float]] = {}
        self._always_basic = False
        self._lock = threading.Lock()

    def header(self, scopes: Sequence[Scope]) -> str | None:
        if self._always_basic:
            return f"Basic {self._basic}"
        cached = self._cache.get(tuple(map(str, scopes)))
        return cached[0] if cached is not None and cached[1] > time.monotonic() else None

    def answer_challenge(self, headers: httpx.Headers, scopes: Sequence[Scope]) -> str | None:
        for challenge in parse_challenges(headers.get_list("www-authenticate")):
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                return self._token(challenge, scopes)
            if challenge.scheme == "basic" and self._basic and not self._always_basic:
                self._always_basic = True
                return f"Basic {self._basic}"
        return None

    def _token(self, challenge: Challenge, scopes: Sequence[Scope]) -> str:
        realm = parse_outbound_url(challenge.parameters["realm"])
        if self._endpoint.scheme == "https" and realm.scheme != "https":
            raise RegistryRefused("The registry names a token server without TLS. No request was sent to it.")
        query = urlencode(
            [("service", challenge.parameters.get("service", "")), *(("scope", str(scope)) for scope in scopes)]
        )
        headers = {}
        if self._basic:
            if not self._is_trusted(realm):
                raise RegistryRefused(
                    "The registry names a token server on another host. Our credentials are not sent there.",
                    realm_host=realm.host,
                )
            headers["Authorization"] = f"Basic {self._basic}"
        url = f"{realm}{'&' if realm.query else '?'}{query}"
        answer = self._http.request("GET", url, headers=headers, max_bytes=_TOKEN_MAX_BYTES)
        if answer.status in {401, 403}:
            raise CredentialsRefused("The registry's token server refused our credentials.", status=answer.status)
        if answer.status != 200:
            kind = RegistryUnavailable if answer.status >= 500 or answer.status == 429 else RegistryRefused
            raise kind(f"The registry's token server answered {answer.status}.", status=answer.status)
        text, life_s = _read_token(answer.body)
        with self._lock:
            if len(self._cache) > 500:
                self._cache.clear()
            self._cache[tuple(map(str, scopes))] = (f"Bearer {text}", time.monotonic() + life_s - _EARLY_S)
        return f"Bearer {text}"

    def _is_trusted(self, realm: httpx.URL) -> bool:
        if origin(realm) == origin(self._endpoint):
            return True
        known = _KNOWN_REALM_HOSTS.get(self._endpoint.host)
        return realm.scheme == "https" and origin(realm)[1:] == (known, 443)


def _read_token(body: bytes) -> tuple[str, float]:
    try:
        fields = json.loads(body)
        text = fields.get("token") or fields.get("access_token")
        life_s = float(fields.get("expires_in") or _DEFAULT_LIFE_S)
    except (ValueError, TypeError, AttributeError, RecursionError):
        text, life_s = None, 0.0
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or len(text) > ERROR_MAX_BYTES:
        raise RegistryRefused("The response of the registry's token server contains no valid token.")
    return text, max(life_s, float(_DEFAULT_LIFE_S))
