"""Pushes through the real registry, by a user with a token, as Docker makes them."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlencode

import httpx
import orjson
from django.conf import settings
from django.db import connection

from accounts import tokens
from accounts.models import ApiToken, Role, Team, User
from lifecycle.authority.models import RoleGrant
from lifecycle.bench.measuring import Caller, Unusable
from lifecycle.core.http import HttpClient
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.oci.scopes import Scope
from lifecycle.registry.models import Tag

PATIENCE_S: Final = 120
POLL_S: Final = 0.005
_USER: Final = "pusher"


def pusher() -> str:
    """Create a user with push access, and return the token that is the password."""
    team, _ = Team.objects.get_or_create(slug="bench", defaults={"name": "Bench"})
    user = User.objects.create_user(_USER)
    RoleGrant.objects.create(user=user, role=Role.objects.get(slug="creator"), team=team)
    return tokens.create_token(user, kind=ApiToken.Kind.PERSONAL, name="bench")[1]


@contextmanager
def registry_client(token: str) -> Iterator[HttpRegistryClient]:
    """Yield a registry client that authenticates like Docker."""
    http, authorizer = HttpClient(), _AsDocker(token)
    try:
        yield HttpRegistryClient(settings.REGISTRY_URL, http=http, authorizer=authorizer)
    finally:
        http.close()
        authorizer.close()


class _AsDocker:
    """Gets a registry token for each scope with user name and password, which our own client never does."""

    def __init__(self, token: str) -> None:
        password = base64.b64encode(f"{_USER}:{token}".encode()).decode()
        self._caller = Caller(settings.PUBLIC_URL, {"Authorization": f"Basic {password}"})
        self._held: dict[tuple[str, ...], str] = {}

    def header(self, scopes: Sequence[Scope]) -> str | None:
        return self._held.get(tuple(map(str, scopes)))

    def answer_challenge(self, headers: httpx.Headers, scopes: Sequence[Scope]) -> str | None:
        scope_pairs = [("scope", str(scope)) for scope in scopes]
        query = urlencode([("service", settings.REGISTRY_SERVICE), *scope_pairs])
        answer = orjson.loads(self._caller.get(f"/auth/token?{query}"))
        self._held[tuple(map(str, scopes))] = f"Bearer {answer['token']}"
        return self.header(scopes)

    def close(self) -> None:
        self._caller.close()


def await_rows(repository: str, digests: set[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    rows = Tag.objects.filter(repository__name=repository, image__digest__in=digests)
    while rows.values("image").distinct().count() < len(digests):
        if time.monotonic() > deadline:
            raise Unusable(f"After {PATIENCE_S} s, some images pushed to {repository} were still missing.")
        connection.close_if_unusable_or_obsolete()
        time.sleep(POLL_S)
