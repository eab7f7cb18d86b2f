"""How allauth is bent to our rules: accounts are made by admins, never by a visitor."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no type information
    """Closed sign-up."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def authenticate(self, request: HttpRequest, **credentials: Any) -> Any:
        """Return the person; robots and Gravingdock itself hold tokens, never a browser session."""
        user = super().authenticate(request, **credentials)
        return user if user is not None and user.is_person else None
