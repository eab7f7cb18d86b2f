"""Sign-in in the browser. It shares the limits of all other endpoints and is recorded in the audit log."""

from __future__ import annotations

from typing import Any, Final

from allauth.account.forms import ChangePasswordForm as AllauthChangePasswordForm
from allauth.account.internal.userkit import get_user_by_username
from django import forms
from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse

from accounts.adapter import AccountAdapter
from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import note_password_changed
from lifecycle.pages.authority.attempts import attempt
from lifecycle.sso.queries import takes_password


class SignInAdapter(AccountAdapter):
    """Adapter that allauth calls for each sign-in, sign-out and password change in the browser."""

    def authenticate(self, request: HttpRequest, **credentials: Any) -> Any:
        """Return the person, or None for a wrong password, a deactivated account and an unknown account alike.

        Raises TooManyAttempts. The message does not show whether the account exists.
        """
        name = str(credentials.get("username") or "")
        # Count by the stored user name, so that all spellings that the database treats as equal share one limit.
        account = get_user_by_username(name)
        with attempt(account.username if account is not None else name) as this_attempt:
            user = super().authenticate(request, **credentials)
            if user is not None and user.is_active and takes_password(user):
                this_attempt.succeeded()
                return user
        with transaction.atomic():
            # Record only the name of an existing account: users sometimes enter their password in the name field.
            audit.record(
                Action.SESSION_REFUSED, actor=None, subject=account, outcome=AuditEvent.Outcome.DENIED,
                details=UserDetails(user=account.username if account is not None else "unknown"),
            )  # fmt: skip
        return None

    def get_login_stages(self) -> list[str]:
        """Return the steps after the password: the second factor of those who have one."""
        return ["lifecycle.pages.authority.second_factor.SecondFactorStage"]

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
        """Set the password. All other sessions of the account end."""
        with transaction.atomic():
            super().set_password(user, password)
            note_password_changed(user)

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("lifecycle:profile")


# Field -> (label, hint). The labels of allauth do not read as the other forms do.
_PASSWORD_FIELDS: Final = {
    "oldpassword": ("Current password", ""),
    "password1": (
        "New password",
        "Use at least 12 characters. Common passwords are rejected. You can paste from a password manager.",
    ),
    "password2": ("Confirm new password", ""),
}


class ChangePasswordForm(AllauthChangePasswordForm):  # type: ignore[misc]  # allauth has no type information
    """Form that checks the current password under the same limits, so that no one can guess it in an open session."""

    keeps_tokens = forms.BooleanField(
        required=False,
        label="Keep my access tokens and registry sign-ins",
        help_text="Otherwise all of them end. Keep them only if nobody else can know the old password.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (label, hint) in _PASSWORD_FIELDS.items():
            field = self.fields[name]
            field.label, field.help_text = label, hint
            field.widget.attrs["class"] = "form-control"
            field.widget.attrs.pop("placeholder", None)  # it repeats the label

    def clean_oldpassword(self) -> str:
        with attempt(self.user.username) as this_attempt:
            password: str = super().clean_oldpassword()  # raises for a wrong password, so the attempt counts
            this_attempt.succeeded()
        return password

    def clean(self) -> dict[str, Any]:
        """Return the values; a new password must differ from the current one, which someone else may know."""
        values: dict[str, Any] = super().clean()
        if values.get("password1") and values.get("password1") == values.get("oldpassword"):
            self.add_error("password1", "Choose a password that differs from the current one.")
        return values

    def save(self) -> None:
        """Set the password, and end the tokens unless the person keeps them."""
        with transaction.atomic():
            self.user.set_password(self.cleaned_data["password1"])
            self.user.save(update_fields=["password"])
            note_password_changed(self.user, keeps_tokens=self.cleaned_data["keeps_tokens"])
