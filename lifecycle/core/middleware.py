"""One place per face where our errors become answers, and one where a request gets its id."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Final

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django_htmx.http import HttpResponseClientRedirect

from lifecycle.core.address import client_address
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import LifecycleError
from lifecycle.pages.error_pages import bad_request

log = structlog.get_logger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")

Answer = Callable[[HttpRequest], HttpResponse]


class RequestContextMiddleware:
    """Gives each request an id, echoed as X-Request-Id, and keeps its address for the audit trail."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        address = client_address(request.META)
        with (
            request_context(
                RequestContext(request_id=request_id, address=address), is_read=request.method in {"GET", "HEAD"}
            ),
            structlog.contextvars.bound_contextvars(request_id=request_id),
        ):
            response = self.get_response(request)
        response["X-Request-Id"] = request_id
        response.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
        return response


class ErrorAnswerMiddleware:
    """Turns a LifecycleError of a view into the page (or fragment) that says it; other errors stay Django's.

    And a fragment that asks for a sign-in into a page of its own: a poll must not draw the sign-in into its corner.
    And no view sees a NUL in an address, which PostgreSQL refuses as text; forms and bodies refuse it themselves.
    """

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return bad_request(request)
        answer = self.get_response(request)
        htmx = getattr(request, "htmx", None)
        if htmx and answer.status_code == 302 and answer["Location"].startswith(reverse("account_login")):
            query = urlencode({"next": htmx.current_url_abs_path or "/"})
            return HttpResponseClientRedirect(f"{reverse('account_login')}?{query}")
        return answer

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, LifecycleError):
            return None
        from lifecycle.audit.services import record_refusal  # noqa: PLC0415 -- core knows no sub-domain at import

        record_refusal(request.user, exception, method=request.method or "", path=request.path)
        log.info("request_refused", code=exception.error_code, status=exception.http_status)
        answer = self._answer(request, exception)
        if exception.http_status == 429:
            answer["Retry-After"] = "30"
        return answer

    def _answer(self, request: HttpRequest, exception: LifecycleError) -> HttpResponse:
        context = {"error": exception, "status": exception.http_status}
        if getattr(request, "htmx", False):
            return render(request, "errors/_problem.html", context, status=exception.http_status)
        if "text/html" not in request.headers.get("Accept", "text/html") and "*/*" not in request.headers.get(
            "Accept", ""
        ):
            return JsonResponse(
                {"code": exception.error_code, "detail": exception.message}, status=exception.http_status
            )
        return render(request, "errors/problem.html", context, status=exception.http_status)
