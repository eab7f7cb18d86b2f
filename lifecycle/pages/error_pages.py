"""Responses for errors that Django raises: our error pages, or problem documents below `/api/`."""

from __future__ import annotations

import sys
from typing import Final

import redis
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from lifecycle.core.errors import LifecycleError, LimitExceeded, NotFound, NotPermitted
from lifecycle.core.problems import problem_answer, wants_problem

# A restarting server, a lock timeout or a statement timeout: these are temporary.
_PASSING: Final = (OperationalError, InterfaceError, redis.RedisError)
_RETRY_AFTER_S: Final = 5


def _answer(request: HttpRequest, error: LifecycleError, status: int) -> HttpResponse:
    if wants_problem(request):
        return problem_answer(status, error.error_code, error.message)
    return render(request, "errors/problem.html", {"error": error, "status": status}, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig):
        return _answer(request, LimitExceeded(str(exception)), 413)
    return _answer(request, LifecycleError("Invalid request.", code="bad_request"), 400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, NotPermitted("Not allowed. If you sent a form, reload the page and try again."), 403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, NotFound("Not found, or you don't have access."), 404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Return 503 with Retry-After when PostgreSQL or Redis did not respond, else 500. This page needs neither."""
    is_passing = isinstance(sys.exc_info()[1], _PASSING)
    status = 503 if is_passing else 500
    if not wants_problem(request):
        # Rendered without the request, because the context processors would query the database for the user.
        answer = HttpResponse(render_to_string("errors/server_error.html", {"is_passing": is_passing}), status=status)
    elif is_passing:
        answer = problem_answer(
            503,
            "unavailable",
            "A required service did not respond. No change was saved in part. Try again.",
        )
    else:
        answer = problem_answer(
            500, "internal_error", "Something went wrong on the server. No change was saved in part. Try again."
        )
    if is_passing:
        answer["Retry-After"] = str(_RETRY_AFTER_S)
    return answer
