"""The answers to what Django itself refuses: pages in the look of our own errors, problems below `/api/`."""

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

# A server that starts anew, a lock not had in time, a statement that took too long: all may pass by themselves.
_PASSING: Final = (OperationalError, InterfaceError, redis.RedisError)
_RETRY_AFTER_S: Final = 5


def _answer(request: HttpRequest, error: LifecycleError, status: int) -> HttpResponse:
    if wants_problem(request):
        return problem_answer(status, error.error_code, error.message)
    return render(request, "errors/problem.html", {"error": error, "status": status}, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig):
        return _answer(request, LimitExceeded(str(exception)), 413)
    return _answer(request, LifecycleError("The request could not be understood.", code="bad_request"), 400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, NotPermitted("This is not allowed. If you sent a form, load its page again."), 403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, NotFound("There is nothing here, or nothing that you may see."), 404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 503 with Retry-After when PostgreSQL or Redis did not answer, else 500; this page needs neither."""
    is_passing = isinstance(sys.exc_info()[1], _PASSING)
    status = 503 if is_passing else 500
    if not wants_problem(request):
        # Without the request: the context processors would ask the database who is signed in.
        answer = HttpResponse(render_to_string("errors/server_error.html", {"is_passing": is_passing}), status=status)
    elif is_passing:
        answer = problem_answer(
            503,
            "unavailable",
            "A part that we need does not answer right now, and nothing was half done; try again.",
        )
    else:
        answer = problem_answer(
            500, "internal_error", "Something broke on our side, and nothing was half done; try again."
        )
    if is_passing:
        answer["Retry-After"] = str(_RETRY_AFTER_S)
    return answer
