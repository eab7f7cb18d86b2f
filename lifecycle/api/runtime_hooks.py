"""The endpoints for events from clusters: Falco, and CloudEvents."""

from __future__ import annotations

import time
from typing import Final

import orjson
import structlog
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from lifecycle.api.hooks import read_body
from lifecycle.clusters.models import Cluster, ClusterSecret
from lifecycle.clusters.queries import cluster_with_secret, hash_of
from lifecycle.core.errors import LifecycleError
from lifecycle.runtime import events
from lifecycle.runtime.cloud_events import read_cloud_events
from lifecycle.runtime.falco import read_falco
from lifecycle.runtime.types import EventsWaiting

log = structlog.get_logger(__name__)

BODY_MAX_BYTES: Final = 1024 * 1024
_SCHEME: Final = "Bearer "
_CHECKED_FOR_S: Final = 5.0  # so long, an ended secret can still be used
_CHECKED_MAX: Final = 1000
_RETRY_AFTER_S: Final = 10


@csrf_exempt  # Falco has no cookie
@login_not_required  # the secret of the cluster is checked first
def falco_hook(request: HttpRequest, source: str, secret: str) -> HttpResponse:
    """Store an event of Falco or falcosidekick and return 202. `source` is the name of the cluster.

    Falco can send no header, so that the secret (kind `alerts`) is in the address. Returns 401 before the body is read,
    413 over 1 MiB, 400 for what is no event, and 503 when it could not be stored, or too many
    events of the cluster wait.
    """
    return _take(request, source, secret, is_falco=True)


@csrf_exempt  # machines have no cookie
@login_not_required  # the bearer token, a secret of the cluster, is checked first
def events_hook(request: HttpRequest, source: str) -> HttpResponse:
    """Store CloudEvents and return 202: structured, batched or binary. The bearer token is a secret `alerts`."""
    given = request.headers.get("Authorization", "")
    secret = given[len(_SCHEME) :].strip() if given.startswith(_SCHEME) else ""
    return _take(request, source, secret, is_falco=False)


def _take(request: HttpRequest, source: str, secret: str, *, is_falco: bool) -> HttpResponse:
    if request.method != "POST":  # not by the decorator, which logs the address with the secret
        answer = _answer(405, "Send a POST.")
        answer["Allow"] = "POST"
        return answer
    try:
        cluster = _cluster(source, secret) if secret else None
        if cluster is None:
            return _answer(401, "Wrong source or secret.")
        body = read_body(request, BODY_MAX_BYTES)
        if body is None:
            return _answer(413, "An event has at most 1 MiB.")
        if is_falco:
            found = [read_falco(_json(body))]
        else:
            headers = {name.lower(): value for name, value in request.headers.items()}
            found = read_cloud_events(request.headers.get("Content-Type", ""), headers, body)
        events.take(cluster, found)
    except LifecycleError as error:
        answer = _answer(error.http_status, error.message)
        if isinstance(error, EventsWaiting):
            answer["Retry-After"] = str(_RETRY_AFTER_S)
        return answer
    except Exception as error:  # noqa: BLE001 -- Django would log the address, which has the secret
        log.warning("event_not_stored", error=type(error).__name__)
        return _answer(503, "Not stored. Send it again.")
    return _answer(202, "")


class _Checked:
    """Secrets that were right a moment ago. A burst of events would ask for the same one each time."""

    until: Final[dict[tuple[str, bytes], tuple[float, Cluster]]] = {}


def _cluster(source: str, secret: str) -> Cluster | None:
    key, now = (source, hash_of(secret)), time.monotonic()
    known = _Checked.until.get(key)
    if known is not None and now < known[0]:
        return known[1]
    cluster = cluster_with_secret(source, secret, ClusterSecret.Kind.ALERTS)
    if cluster is not None:
        if len(_Checked.until) >= _CHECKED_MAX:
            _Checked.until.clear()
        _Checked.until[key] = (now + _CHECKED_FOR_S, cluster)
    return cluster


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None  # the reader refuses it


def _answer(status: int, detail: str) -> HttpResponse:
    answer = JsonResponse({"status": status, "detail": detail} if detail else {}, status=status)
    answer["Cache-Control"] = "no-store"
    # Django logs the address of each refused request, and here it has the secret.
    answer._has_been_logged = True  # type: ignore[attr-defined]  # as django.utils.log.log_response does
    return answer
