"""What every page's view takes from its request."""

from __future__ import annotations

from typing import TypedDict, cast

from django.http import HttpRequest

from accounts.models import User


class Cursors(TypedDict):
    """The place in a list, as `keyset_page` takes it."""

    after: str
    before: str


def reader(request: HttpRequest) -> User:
    """Return the signed-in user; LoginRequiredMiddleware lets nobody else in."""
    return cast(User, request.user)


def cursors(request: HttpRequest) -> Cursors:
    """Return where in a list the address points."""
    return {"after": request.GET.get("after", ""), "before": request.GET.get("before", "")}
