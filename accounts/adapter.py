"""Adapter for allauth. Only admins create accounts, so visitors cannot sign up."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no type information
    """Disables sign-up, and allows sign-in in the browser for people only."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def authenticate(self, request: HttpRequest, **credentials: Any) -> Any:
        """Return the person, or None. Robots and the system user never get a browser session."""
        user = super().authenticate(request, **credentials)
        return user if user is not None and user.is_person else None
