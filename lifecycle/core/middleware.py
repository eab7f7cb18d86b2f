"""The middleware that sets the request context and the request id."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Final

import structlog
from django.http import HttpRequest, HttpResponse

from lifecycle.core.address import client_address
from lifecycle.core.context import RequestContext, request_context

log = structlog.get_logger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
_CLIENT_MAX: Final = 200  # characters of a User-Agent

Answer = Callable[[HttpRequest], HttpResponse]


class RequestContextMiddleware:
    """Gives each request an id, returned as X-Request-Id, and keeps its address for the audit log.

    No response is stored by browsers or proxies unless it says that it can be.
    """

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        address = client_address(request.META)
        # Printable characters only: it is shown on pages and stored in PostgreSQL, which takes no NUL.
        client = "".join(filter(str.isprintable, request.headers.get("User-Agent", "")))[:_CLIENT_MAX]
        with (
            request_context(
                RequestContext(request_id=request_id, address=address, client=client),
                is_read=request.method in {"GET", "HEAD"},
            ),
            structlog.contextvars.bound_contextvars(request_id=request_id),
        ):
            response = self.get_response(request)
        response["X-Request-Id"] = request_id
        # Pages and the API show what only this user can see. Static files have set their own header.
        response.setdefault("Cache-Control", "no-store")
        response.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
        return response
