"""Values that page views read from the request."""

from __future__ import annotations

from typing import TypedDict, cast

from django.http import HttpRequest

from accounts.models import User


class Cursors(TypedDict):
    """The position in a list, as arguments for `keyset_page`."""

    after: str
    before: str


def reader(request: HttpRequest) -> User:
    """Return the signed-in user. LoginRequiredMiddleware guarantees that there is one."""
    return cast(User, request.user)


def cursors(request: HttpRequest) -> Cursors:
    """Return the position in a list from the URL."""
    return {"after": request.GET.get("after", ""), "before": request.GET.get("before", "")}
