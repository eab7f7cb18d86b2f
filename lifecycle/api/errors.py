"""Errors of the API as `application/problem+json` (RFC 9457), with stable codes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.exceptions import ValidationError as ModelInvalid
from django.http import Http404
from rest_framework import exceptions
from rest_framework.fields import get_error_detail
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import set_rollback

from accounts.models import Team
from lifecycle.api.rendering import FastJSONRenderer
from lifecycle.audit.services import record_refusal
from lifecycle.authority.services.asking import owners_of
from lifecycle.core.errors import LifecycleError, NotFound
from lifecycle.core.problems import MEDIA_TYPE, problem_body
from lifecycle.core.reasons import Denial

_WHOLE = "non_field_errors"  # DRF's key for errors of the whole body


class ProblemResponse(Response):
    """A problem document. It is JSON whatever the request accepts, also at an address with another format."""

    @property
    def rendered_content(self) -> bytes:  # type: ignore[override]  # DRF's own returns bytes too
        self["Content-Type"] = MEDIA_TYPE
        return FastJSONRenderer().render(self.data)


def problem(
    status: int, code: str, detail: str, *, errors: list[dict[str, str]] | None = None, **extra: Any
) -> Response:
    """Return a problem document as a DRF response."""
    body = problem_body(status, code, detail, errors=errors, **extra)
    return ProblemResponse(body, status=status, content_type=MEDIA_TYPE)


def problem_response(error: Exception, details: dict[str, Any]) -> Response | None:
    """Exception handler for DRF: return our errors and DRF's as problems, None (500) for anything else."""
    if isinstance(error, Http404):
        error = NotFound("Not found, or you don't have access.")
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, LifecycleError):
        set_rollback()
        request: Request = details["request"]
        record_refusal(request.user, error, method=request.method or "", path=request.path)
        return problem(
            error.http_status, error.error_code, error.message, details=_plain(error.details), **_missing(error)
        )
    if isinstance(error, ModelInvalid):  # a validator of a model, for example of a slug
        error = exceptions.ValidationError(get_error_detail(error))
    if isinstance(error, exceptions.ValidationError):
        set_rollback()
        return problem(400, "invalid", "Invalid request.", errors=list(_pointers(error.detail, "")))
    if isinstance(error, exceptions.APIException):
        set_rollback()
        code = error.default_code if isinstance(error.default_code, str) else "error"
        response = problem(error.status_code, code, str(error.detail))
        if header := getattr(error, "auth_header", None):
            response["WWW-Authenticate"] = header
        if (wait := getattr(error, "wait", None)) is not None:
            response["Retry-After"] = str(wait)
        return response
    return None


def _missing(error: LifecycleError) -> dict[str, Any]:
    """Return which right is missing where, who can grant it and where to ask for it; {} for other errors.

    Whoever gets such an answer sees the team, or a repository of it.
    """
    denial = error.message
    if not isinstance(denial, Denial):
        return {}
    team = Team.objects.filter(slug=denial.team).first()
    return {
        "missing": denial.missing,
        "granters": owners_of(team) if team is not None else [],
        "ask": f"{settings.PUBLIC_URL}/access-requests/new/?{urlencode(denial.missing)}",
    }


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, (int, list, dict, bool)) else str(value) for name, value in details.items()
    }


def _pointers(detail: Any, pointer: str) -> Any:
    """Yield {pointer, detail} for each error of a nested DRF error; pointers as in RFC 6901, "" for the whole body."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            escaped = str(name).replace("~", "~0").replace("/", "~1")
            yield from _pointers(inner, pointer if name == _WHOLE else f"{pointer}/{escaped}")
    elif isinstance(detail, list):
        for position, inner in enumerate(detail):
            nested = isinstance(inner, (dict, list))
            yield from _pointers(inner, f"{pointer}/{position}" if nested else pointer)
    else:
        yield {"pointer": pointer, "detail": str(detail)}
