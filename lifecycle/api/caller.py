"""The calling user of an API request, with a type that the type checker knows."""

from __future__ import annotations

from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from accounts.models import User


def caller(request: Request) -> User:
    """Return the signed-in user of an API request; raises NotAuthenticated (401) without one."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return request.user
