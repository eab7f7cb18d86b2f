"""Signing in by browser: under the budget that all doors share, and written to the trail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from allauth.account.forms import ChangePasswordForm as AllauthChangePasswordForm
from allauth.account.internal.userkit import get_user_by_username
from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse

from accounts.adapter import AccountAdapter
from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, UserDetails
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter
from lifecycle.core import context
from lifecycle.core.errors import TooManyAttempts


@contextmanager
def attempt(account: str) -> Iterator[limiter.Attempt]:
    """Count an attempt at a password before it is looked at; the block says `succeeded()` when it was right.

    Raises TooManyAttempts when the budget of the account, or of the address, is spent. Counted first, so that fifty at
    once cannot all see the last free place.
    """
    made = limiter.reserve(account, context.current().address)
    if made is None:
        raise TooManyAttempts("Too many wrong passwords for this account, or from this address. Wait five minutes.")
    yield made


class SignInAdapter(AccountAdapter):
    """What allauth asks at the door of the browser."""

    def authenticate(self, request: HttpRequest, **credentials: Any) -> Any:
        """Return the person or None: a wrong password, an ended account and none at all look the same.

        Raises TooManyAttempts, in the same words whether there is such an account.
        """
        name = str(credentials.get("username") or "")
        # By the account's own name: ways of writing it that the database takes for the same share its budget.
        found = get_user_by_username(name)
        with attempt(found.username if found is not None else name) as made:
            user = super().authenticate(request, **credentials)
            if user is not None and user.is_active:
                made.succeeded()
                return user
        with transaction.atomic():
            # What was typed may be a password in the wrong field: only the name of an account that exists is kept.
            audit.record(
                Action.SESSION_REFUSED, actor=None, subject=found, outcome=AuditEvent.Outcome.DENIED,
                details=UserDetails(user=found.username if found is not None else "unknown"),
            )  # fmt: skip
        return None

    def login(self, request: HttpRequest, user: User) -> None:
        super().login(request, user)
        with transaction.atomic():
            audit.record(Action.SESSION_STARTED, actor=user, subject=user, details=UserDetails(user=user.username))

    def logout(self, request: HttpRequest) -> None:
        user = request.user
        super().logout(request)
        if isinstance(user, User):
            with transaction.atomic():
                audit.record(Action.SESSION_ENDED, actor=user, subject=user, details=UserDetails(user=user.username))

    def set_password(self, user: User, password: str) -> None:
        """Set the password; every other session of the account ends with the old one."""
        with transaction.atomic():
            super().set_password(user, password)
            audit.record(
                Action.USER_PASSWORD_CHANGED, actor=user, subject=user, details=UserDetails(user=user.username)
            )

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("lifecycle:tokens")  # where one's account is looked after


class ChangePasswordForm(AllauthChangePasswordForm):  # type: ignore[misc]  # allauth has no type information
    """Asks for the present password, under the same budget: a session left open is no place to guess it."""

    def clean_oldpassword(self) -> str:
        with attempt(self.user.username) as made:
            password: str = super().clean_oldpassword()  # a wrong one raises, and stays counted
            made.succeeded()
        return password
