"""Token bench: registry tokens per second of one core and their times, beside simpler ways to issue them."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from accounts import tokens
from accounts.models import ApiToken, Robot, Role, Team, User
from lifecycle.authority.models import RoleGrant
from lifecycle.bench import loading, open_loop
from lifecycle.bench.measuring import Unusable, load_s_for, percentile
from lifecycle.bench.processes import Processes
from lifecycle.bench.types import Figure, Figures
from lifecycle.oci.scopes import granted, parse_scopes
from lifecycle.registry.models import Repository
from lifecycle.tokens import endpoint
from lifecycle.tokens.rights import allowed_actions

_RATE_TARGET: Final = 3000.0  # tokens/s on one core
_P99_TARGET_MS: Final = 5.0
_OFFERED: Final = 500  # tokens/s of the open loop
_NAME: Final = "robot"


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load the data, so that lookups have many rows; then request tokens as a robot with push and pull access."""
    loading.load(images, note=note)
    repository = Repository.objects.select_related("team").order_by("-pk")[0]
    text = _robot(repository.team)
    authorization = "Basic " + base64.b64encode(f"{_NAME}:{text}".encode()).decode()
    scope = f"repository:{repository.name}:pull,push"
    query = urlencode({"service": settings.REGISTRY_SERVICE, "scope": scope})
    seconds = load_s_for(images)
    note("calling in this process")
    environ = {"QUERY_STRING": query, "HTTP_AUTHORIZATION": authorization}
    alone = _per_core_s(lambda: _called(endpoint.application, "/auth/token", environ), seconds)
    before = _per_core_s(lambda: _from_database(text, scope), seconds)
    with override_settings(ROOT_URLCONF="lifecycle.bench.plain_token"):
        handler = WSGIHandler()
        plain = _per_core_s(lambda: _called(handler, "/token", environ), seconds)
    signatures = _per_core_s(_bare_signature(), seconds)
    with Processes() as processes:
        pid = processes.web(workers=1)
        port = urlsplit(settings.PUBLIC_URL).port or 0
        note("sending requests over HTTP")
        request = (
            f"GET /auth/token?{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n"
        ).encode()
        served = open_loop.per_core_s(pid, port, request, seconds)
        steady = asyncio.run(open_loop.offered(port, request, seconds, rate=_OFFERED, expected=b'"access_token"'))
    if steady.problems:
        raise Unusable(f"A request failed: {steady.problems[0][:300]}")
    return {
        "tokens_per_s_core": Figure(alone, "tokens/s", _RATE_TARGET),
        "tokens_per_s_core_over_http": Figure(served, "tokens/s"),
        "token_p50_at_500": Figure(percentile(steady.times_ms, 0.5), "ms"),
        "token_p99_at_500": Figure(percentile(steady.times_ms, 0.99), "ms", _P99_TARGET_MS),
        "plain_drf_per_s_core": Figure(plain, "tokens/s"),
        "from_database_per_s_core": Figure(before, "tokens/s"),
        "bare_signatures_per_s_core": Figure(signatures, "signatures/s"),
        "times_plain_drf": Figure(alone / plain, "x", 3.0),
        "share_of_bare_signatures": Figure(alone / signatures, "x"),
    }


def issue(text: str, scope: str) -> str:
    """Return a token as it was issued before rights were kept in memory: everything from the database, PyJWT."""
    row = tokens.find_token(text)
    if row is None:
        raise Unusable("The token of the bench is refused.")
    tokens.note_use(row, "127.0.0.1")
    requested = parse_scopes([scope])
    now = int(time.time())
    claims = {
        "iss": settings.TOKEN_ISSUER, "sub": row.user.username, "aud": settings.REGISTRY_SERVICE, "iat": now,
        "nbf": now - 10, "exp": now + 300, "jti": "bench",
        "access": [one.as_access() for one in granted(requested, allowed_actions(row.user, requested))],
    }  # fmt: skip
    if not claims["access"]:
        raise Unusable("The robot of the bench has no access.")
    return jwt.encode(claims, settings.TOKEN_KEY, algorithm="ES256")


def _from_database(text: str, scope: str) -> None:
    issue(text, scope)


def _bare_signature() -> Callable[[], None]:
    key = load_pem_private_key(settings.TOKEN_KEY.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unusable("TOKEN_KEY is not an elliptic curve key.")
    content, algorithm = b"x" * 900, ec.ECDSA(hashes.SHA256())

    def sign() -> None:
        key.sign(content, algorithm)

    return sign


def _robot(team: Team) -> str:
    """Create a robot of the team, and return the text of its token."""
    admin = User.objects.create_user("robots-admin", is_superuser=True)
    user = User.objects.create_user(_NAME, kind=User.Kind.ROBOT)
    creator = Role.objects.get(slug="creator")
    Robot.objects.create(user=user, team=team, name=_NAME, created_by=admin, responsible=admin)
    for holder in (user, admin):
        RoleGrant.objects.create(user=holder, role=creator, team=team)
    return tokens.create_token(user, kind=ApiToken.Kind.ROBOT, name="bench")[1]


def _per_core_s(ask: Callable[[], None], seconds: float) -> float:
    """Return how often one thread does it per second of its processor time, without a server."""
    for _ in range(3):
        ask()
    count, started, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        ask()
        count += 1
    return count / (time.process_time() - used)


def _called(application: Callable[..., Any], path: str, more: dict[str, Any]) -> None:
    """Call a WSGI application once; raises Unusable unless it issues a token."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1", "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http", "wsgi.errors": io.StringIO(), "SERVER_NAME": "localhost", "SERVER_PORT": "80",
        "HTTP_HOST": settings.ALLOWED_HOSTS[0], **more,
    }  # fmt: skip
    statuses: list[str] = []

    def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], object]:
        statuses.append(status)
        return lambda content: None

    answer = application(environ, start)
    content = b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    if not statuses[0].startswith("200") or b"access_token" not in content:
        raise Unusable(f"{path} returned {statuses[0]}: {content[:200]!r}")
