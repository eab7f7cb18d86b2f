"""Problem documents (RFC 9457): the error format below `/api/`, also for requests that reach no view."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, JsonResponse

from lifecycle.core import context

MEDIA_TYPE: Final = "application/problem+json"


def problem_body(
    status: int, code: str, detail: str, *, errors: list[dict[str, str]] | None = None, **extra: Any
) -> dict[str, Any]:
    """Return a problem document: `type` is stable, `detail` says what to do, `errors` point to the wrong fields."""
    body: dict[str, Any] = {
        "type": f"urn:gravingdock:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": context.current().request_id,
    }
    if errors:
        body["errors"] = errors
    return body | {name: value for name, value in extra.items() if name not in body}


def problem_answer(status: int, code: str, detail: str) -> JsonResponse:
    """Return a problem as a Django response, for requests that reach no view of the API."""
    return JsonResponse(problem_body(status, code, detail), status=status, content_type=MEDIA_TYPE)


def wants_problem(request: HttpRequest) -> bool:
    """Return whether the request is for the API, which returns every error as a problem."""
    return request.path.startswith("/api/")
