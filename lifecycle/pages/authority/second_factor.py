"""The second step of a sign-in, and the proofs of identity that a browser session remembers.

allauth runs the steps and keeps the proofs, each with its time. Ours are `password`, `sso` and, for a second factor,
`mfa`.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, Final

from allauth.account.internal.flows.login import (
    AUTHENTICATION_METHODS_SESSION_KEY,
    get_authentication_records,
    record_authentication,
)
from allauth.account.stages import LoginStage
from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from fido2.utils import websafe_decode, websafe_encode

from accounts.models import User
from lifecycle.authority import services
from lifecycle.authority.second_factors import has_factor, is_of_app, request_options, use_code, use_passkey
from lifecycle.core import context
from lifecycle.pages.authority.attempts import attempt, code_attempt
from lifecycle.signatures.assertions import BadAssertion

MFA: Final = "mfa"  # allauth's name of a proof with a second factor
_FIRST: Final = frozenset({"password", "sso"})  # proofs without a second factor
_CHALLENGE: Final = "passkey_challenge"
_CHALLENGE_S: Final = 5 * 60  # a person has this long to answer


class SecondFactorStage(LoginStage):  # type: ignore[misc]  # allauth has no type information
    """Asks whoever has a second factor for it, before the session begins. A sign-in with SSO passes here too."""

    key = "second_factor"
    urlname = "lifecycle:second-factor"

    def handle(self) -> tuple[HttpResponse | None, bool]:
        user = self.login.user
        if user is None or not has_factor(user):
            return None, True
        return redirect("lifecycle:second-factor"), True


def note_proofs(request: HttpRequest) -> None:
    """Note in the context how lately the person of this session proved who they are."""
    records = get_authentication_records(request, request.user)
    times = [float(record.get("at", 0)) for record in records]
    strong = [float(record.get("at", 0)) for record in records if record.get("method") == MFA]
    context.set_proofs(confirmed_at=max(times, default=0), strong_at=max(strong, default=0))


def record_proof(request: HttpRequest, user: User, kind: str) -> None:
    """Remember a proof in the session: `password`, `sso`, or the kind of a second factor."""
    if kind in _FIRST:
        record_authentication(request, user, kind, reauthenticated=True)
    else:
        record_authentication(request, user, MFA, type=kind, reauthenticated=True)


def forget_proofs(request: HttpRequest) -> None:
    """Forget the proofs with a second factor: the person has none any more."""
    request.session[AUTHENTICATION_METHODS_SESSION_KEY] = [
        record for record in get_authentication_records(request, request.user) if record.get("method") != MFA
    ]


def new_challenge(request: HttpRequest) -> bytes:
    """Return new random bytes for a passkey to sign, and remember them in the session until they are used."""
    challenge = secrets.token_bytes(32)
    request.session[_CHALLENGE] = {"challenge": websafe_encode(challenge), "at": time.time()}
    return challenge


def take_challenge(request: HttpRequest) -> bytes | None:
    """Return the challenge of this session, once; None for an old one, or none."""
    found = request.session.pop(_CHALLENGE, None)
    if not isinstance(found, dict) or time.time() - found["at"] > _CHALLENGE_S:
        return None
    return websafe_decode(found["challenge"])


class FactorForm(forms.Form):
    """A code of the person's app or a recovery code, or the response of a passkey. `kind` is which one was right.

    Wrong ones count with wrong passwords, under one limit.
    """

    code = forms.CharField(
        required=False,
        max_length=40,
        label="Code",
        help_text="Six digits from your authenticator app, or a recovery code.",
        widget=forms.TextInput(
            attrs={
                "class": "form-control", "autocomplete": "one-time-code", "inputmode": "text", "spellcheck": "false",
                "autocapitalize": "characters",
            }
        ),
    )  # fmt: skip
    assertion = forms.CharField(required=False, max_length=20_000, widget=forms.HiddenInput)
    kind = ""

    def __init__(self, request: HttpRequest, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request, self.user = request, user

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        text, assertion = values.get("code", ""), values.get("assertion", "")
        if not text and not assertion:
            self.add_error("code", "Enter the code, or use a passkey.")
            return values
        if self.errors:
            return values
        with attempt(self.user.username) as this_attempt:
            if assertion:
                self.kind = self._by_passkey(assertion)
            elif is_of_app(text):
                with code_attempt(self.user.username) as of_codes:
                    self.kind = use_code(self.user, text)
                    if self.kind:
                        of_codes.succeeded()
            else:
                self.kind = use_code(self.user, text)
            if self.kind:
                this_attempt.succeeded()
        if not self.kind:
            services.note_refused(self.user)
            if assertion:
                self.add_error(None, "The passkey was not accepted. Try again, or use a code.")
            else:
                self.add_error("code", "The code is wrong, or was used already. Each code works once.")
        return values

    def _by_passkey(self, text: str) -> str:
        challenge = take_challenge(self.request)
        try:
            response = json.loads(text)
            if challenge is None:
                return ""
            use_passkey(self.user, response, challenge=challenge)
        except (BadAssertion, ValueError):
            return ""
        return "passkey"

    def passkey_options(self) -> str:
        """Return the options for the browser in JSON, "" for a person without passkeys."""
        if not self.user.passkeys.exists():
            return ""
        return json.dumps(request_options(self.user, new_challenge(self.request)))
