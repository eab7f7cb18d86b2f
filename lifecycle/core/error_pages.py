"""The pages for what Django itself refuses; the same look as our own errors."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from lifecycle.core.errors import LifecycleError, NotFound, NotPermitted


def _page(request: HttpRequest, error: LifecycleError, status: int) -> HttpResponse:
    return render(request, "errors/problem.html", {"error": error, "status": status}, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, LifecycleError("The request could not be understood."), 400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, NotPermitted("This is not allowed. If you sent a form, load its page again."), 403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, NotFound("There is nothing here, or nothing that you may see."), 404)


def server_error(request: HttpRequest) -> HttpResponse:
    return render(request, "errors/server_error.html", status=500)
