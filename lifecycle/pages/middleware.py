"""The middleware that turns errors of views into pages and fragments."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django_htmx.http import HttpResponseClientRedirect

from lifecycle.audit.services import record_refusal
from lifecycle.authority import limiter
from lifecycle.core.errors import LifecycleError
from lifecycle.pages.error_pages import bad_request

log = structlog.get_logger(__name__)

Answer = Callable[[HttpRequest], HttpResponse]


class ErrorAnswerMiddleware:
    """Turns a LifecycleError of a view into an error page or fragment. Django handles other errors.

    It also redirects the whole page to the sign-in page when a fragment needs a sign-in: a poll must not show the
    sign-in form inside a page. And it rejects a NUL in a URL, because PostgreSQL does not accept it in text. Forms and
    bodies reject NUL themselves.
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
        record_refusal(request.user, exception, method=request.method or "", path=request.path)
        log.info("request_refused", code=exception.error_code, status=exception.http_status)
        answer = self._answer(request, exception)
        if exception.http_status == 429:
            answer["Retry-After"] = str(limiter.RETRY_AFTER_S)
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
