"""Prove who you are: the second step of a sign-in, and again before what needs a fresh proof."""

from __future__ import annotations

from typing import Any, Final

from allauth.account.internal.decorators import login_stage_required
from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.models import User
from lifecycle.authority import services
from lifecycle.authority.second_factors import has_factor
from lifecycle.pages.authority.attempts import attempt
from lifecycle.pages.authority.second_factor import FactorForm, SecondFactorStage, record_proof
from lifecycle.pages.requests import reader
from lifecycle.sso.queries import own_providers

_NEXT_MAX: Final = 2000  # characters of an address


@require_http_methods(["GET", "HEAD", "POST"])
@login_stage_required(stage=SecondFactorStage.key, redirect_urlname="account_login")  # type: ignore[untyped-decorator]  # allauth's
def second_factor(request: HttpRequest) -> HttpResponse:
    """Ask for the second factor of a sign-in. Open to visitors whose password was right a moment ago."""
    stage = request._login_stage  # type: ignore[attr-defined]  # the decorator sets it
    user: User = stage.login.user
    form = FactorForm(request, user, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        services.note_recovery_code(user, form.kind)
        record_proof(request, user, form.kind)
        answer: HttpResponse = stage.exit()
        return answer
    context = {"form": form, "account": user, "options": form.passkey_options()}
    return render(request, "account/second_factor.html", context, status=422 if form.errors else 200)


class PasswordForm(forms.Form):
    """The person's password, for those without a second factor. Wrong ones count under the limit of sign-ins."""

    password = forms.CharField(
        widget=forms.PasswordInput(attrs={"class": "form-control", "autocomplete": "current-password"})
    )
    kind = "password"

    def __init__(self, request: HttpRequest, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        with attempt(self.user.username) as this_attempt:
            if self.user.check_password(password):
                this_attempt.succeeded()
                return password
        services.note_refused(self.user)
        raise forms.ValidationError("The password is wrong.")

    def passkey_options(self) -> str:
        """Return "": only a second factor is a passkey."""
        return ""


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest) -> HttpResponse:
    """Ask the reader to prove again who they are: with a second factor, or without one with the password or a provider.

    Then the reader is led back (`next`). The session gets another key, as after a sign-in (ASVS 7.2.4).
    """
    user = reader(request)
    back = _back(request)
    form_class: type[FactorForm | PasswordForm] = FactorForm if has_factor(user) else PasswordForm
    form = form_class(request, user, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        services.note_confirmed(user, form.kind)
        record_proof(request, user, form.kind)
        request.session.cycle_key()
        return redirect(back)
    has_form = form_class is FactorForm or user.has_usable_password()
    context = {
        "form": form if has_form else None,
        "back": back,
        "options": form.passkey_options(),
        "providers": list(own_providers(user)) if form_class is PasswordForm else [],
    }
    return render(request, "account/confirm.html", context, status=422 if form.errors else 200)


def _back(request: HttpRequest) -> str:
    """Return the address on this site that the reader came from."""
    back = str(request.POST.get("next") or request.GET.get("next") or "")[:_NEXT_MAX]
    if not url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        return reverse("lifecycle:security")
    return back
