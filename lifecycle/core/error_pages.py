"""The answers to what Django itself refuses: pages in the look of our own errors, problems below `/api/`."""

from __future__ import annotations

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from lifecycle.core.errors import LifecycleError, LimitExceeded, NotFound, NotPermitted
from lifecycle.core.problems import problem_answer, wants_problem


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
    if wants_problem(request):
        return problem_answer(
            500, "internal_error", "Something broke on our side, and nothing was half done; try again."
        )
    return render(request, "errors/server_error.html", status=500)
