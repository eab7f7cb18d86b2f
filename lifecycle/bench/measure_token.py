"""Token bench: rate and response time of registry tokens, with and without the web process."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings

from accounts import tokens
from accounts.models import ApiToken, Robot, Role, Team, User
from lifecycle.authority.models import RoleGrant
from lifecycle.bench import loading
from lifecycle.bench.measuring import Caller, Unusable, load_s_for, percentile, repeated_ms, repeats_for, requests_per_s
from lifecycle.bench.processes import Processes
from lifecycle.bench.types import Figure, Figures
from lifecycle.registry.models import Repository
from lifecycle.tokens import endpoint

_RATE_TARGET: Final = 3500.0  # tokens/s on one core
_P99_TARGET_MS: Final = 5.0


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load the data, so that lookups have many rows; then request tokens as a robot with push and pull access."""
    loading.load(images, note=note)
    repository = Repository.objects.select_related("team").order_by("-pk")[0]
    authorization = _robot(repository.team)
    query = urlencode({"service": settings.REGISTRY_SERVICE, "scope": f"repository:{repository.name}:pull,push"})
    seconds = load_s_for(images)
    note("calling the endpoint in this process")
    alone = _calls_per_s(query, authorization, seconds)
    with Processes() as processes:
        processes.web()
        note("sending requests over HTTP")
        client = partial(Caller, settings.PUBLIC_URL, {"Authorization": authorization})
        caller = client()
        times_ms = repeated_ms(partial(caller.get, f"/auth/token?{query}"), repeats=repeats_for(images, 300))
        caller.close()
        rate = requests_per_s(client, f"/auth/token?{query}", seconds=seconds)
    return {
        "tokens_per_s_in_process": Figure(alone, "tokens/s", _RATE_TARGET),
        "tokens_per_s_over_http": Figure(rate, "tokens/s", _RATE_TARGET),
        "token_p50": Figure(percentile(times_ms, 0.5), "ms"),
        "token_p95": Figure(percentile(times_ms, 0.95), "ms"),
        "token_p99": Figure(percentile(times_ms, 0.99), "ms", _P99_TARGET_MS),
    }


def _robot(team: Team) -> str:
    """Create a robot of the team, and return its `Authorization` header."""
    admin = User.objects.create_user("robots-admin", is_superuser=True)
    user = User.objects.create_user("robot", kind=User.Kind.ROBOT)
    Robot.objects.create(user=user, team=team, name="robot", created_by=admin, responsible=admin)
    RoleGrant.objects.create(user=user, role=Role.objects.get(slug="creator"), team=team)
    _, text = tokens.create_token(user, kind=ApiToken.Kind.ROBOT, name="bench")
    return "Basic " + base64.b64encode(f"robot:{text}".encode()).decode()


def _calls_per_s(query: str, authorization: str, seconds: float) -> float:
    """Return the number of tokens per second that one thread gets from the WSGI callable, without a server."""
    statuses: set[str] = set()

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], object]:
        statuses.add(status)
        return lambda content: None

    def ask() -> None:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/auth/token",
            "QUERY_STRING": query,
            "HTTP_AUTHORIZATION": authorization,
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.input": io.BytesIO(),
        }
        list(endpoint.application(environ, start_response))

    ask()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        ask()
        count += 1
    if statuses != {"200 OK"}:
        raise Unusable(f"The token endpoint returned {sorted(statuses)}.")
    return count / (time.perf_counter() - started)
