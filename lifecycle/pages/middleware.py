"""The middleware that turns errors of views into pages and fragments."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from typing import Final

import structlog
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django_htmx.http import HttpResponseClientRedirect

from accounts.models import User
from lifecycle.audit.services import record_refusal
from lifecycle.authority import limiter
from lifecycle.core.errors import LifecycleError
from lifecycle.core.problems import problem_answer
from lifecycle.pages.authority.second_factor import note_proofs
from lifecycle.pages.error_pages import bad_request

log = structlog.get_logger(__name__)

Answer = Callable[[HttpRequest], HttpResponse]


_BEFORE_THE_PASSWORD: Final = frozenset({"account_change_password", "account_logout", "livez", "readyz", "metrics"})


_BEFORE_THE_FACTOR: Final = _BEFORE_THE_PASSWORD | {
    "lifecycle:confirm", "lifecycle:security", "lifecycle:totp", "lifecycle:passkey-new", "lifecycle:theme",
    "lifecycle:session-end", "lifecycle:sessions-end-others", "lifecycle:sso-start", "lifecycle:sso-callback",
}  # fmt: skip


class ReaderMiddleware:
    """Shows times in the zone of the reader, and asks for what is due before anything else.

    That is a new password, or a second factor. The API answers everybody in UTC.
    """

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if isinstance(user, User):
            note_proofs(request)
        if request.path.startswith("/api/") or not isinstance(user, User):
            return self.get_response(request)
        with timezone.override(_zone(user.time_zone)):
            return self.get_response(request)

    def process_view(self, request: HttpRequest, *_: object) -> HttpResponse | None:
        user = request.user
        if not isinstance(user, User):
            return None
        name = request.resolver_match.view_name if request.resolver_match is not None else ""
        if user.must_change_password:
            if name in _BEFORE_THE_PASSWORD:
                return None
            return _first(request, "account_change_password", "password_change_required", _CHANGE_FIRST)
        if getattr(request.session, "owes_second_factor", False) and name not in _BEFORE_THE_FACTOR:
            return _first(request, "lifecycle:security", "second_factor_required", _SET_UP_FIRST)
        return None


def _first(request: HttpRequest, view: str, code: str, words: str) -> HttpResponse:
    """Lead to what has to be done before anything else."""
    if request.path.startswith("/api/"):
        return problem_answer(403, code, words)
    if getattr(request, "htmx", None):
        return HttpResponseClientRedirect(reverse(view))
    messages.warning(request, words)
    return redirect(view)


_SET_UP_FIRST: Final = "Set up a second factor first: your role requires one."
_CHANGE_FIRST: Final = "Change your password first: another user has seen the current one."


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):  # a zone that a newer database no longer has
        return zoneinfo.ZoneInfo("UTC")


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
