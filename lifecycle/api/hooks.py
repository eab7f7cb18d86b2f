"""The endpoint for notifications from registries."""

from __future__ import annotations

import hmac
from typing import Final

import structlog
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from lifecycle.ingest import services
from lifecycle.ingest.constants import HOOK_BODY_MAX_BYTES
from lifecycle.registry.models import Registry
from lifecycle.registry.services import MANAGED_NAME, ensure_managed_registry

log = structlog.get_logger(__name__)

_SCHEME: Final = "Bearer "


@csrf_exempt  # a registry has no cookie
@login_not_required  # a registry authenticates with the hook's secret, checked first
@require_POST
def registry_hook(request: HttpRequest, name: str) -> HttpResponse:
    """Store a notification and return 202. A registry sends the notification again after any other status.

    Returns 401 for a wrong secret or an unknown registry, before the body is read. Returns 413 for a body over
    HOOK_BODY_MAX_BYTES, and 503 when the notification could not be stored.
    """
    given = request.headers.get("Authorization", "").encode()
    expected = f"{_SCHEME}{settings.REGISTRY_HOOK_SECRET}".encode()
    # Always compare first, so that the response time does not show which registries exist.
    is_ours = hmac.compare_digest(given, expected)
    if not is_ours or name != MANAGED_NAME:
        return _answer(401)
    body = read_body(request, HOOK_BODY_MAX_BYTES)
    if body is None:
        return _answer(413)
    try:
        registry = Registry.objects.filter(is_managed=True).first() or ensure_managed_registry()
        services.receive(registry, body)
    except (DatabaseError, InterfaceError) as error:
        log.warning("notification_not_stored", error=type(error).__name__)
        return _answer(503)
    return _answer(202)


def read_body(request: HttpRequest, limit: int) -> bytes | None:
    """Return the body, or None when it has more than `limit` bytes. Reads at most one byte more than these."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if length:
        if not length.isascii() or not length.isdigit() or int(length) > limit:
            return None
        return request.read(int(length))
    if not request.META.get("wsgi.input_terminated"):
        return b""
    pieces, size = [], 0
    stream = request.META["wsgi.input"]  # chunked body: Django's own stream would be empty
    while piece := stream.read(limit + 1 - size):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            return None
    return b"".join(pieces)


def _answer(status: int) -> HttpResponse:
    response = HttpResponse(status=status, content_type="text/plain")
    response["Cache-Control"] = "no-store"
    return response
