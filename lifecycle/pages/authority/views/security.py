"""How the reader signs in: the password, second factors, and the browsers that are signed in."""

from __future__ import annotations

import base64
import json
import time
from io import BytesIO
from typing import Any, Final
from uuid import UUID

import qrcode
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from qrcode.image.svg import SvgPathImage

from accounts.models import User
from lifecycle.authority import services
from lifecycle.authority.resets import why_reset
from lifecycle.authority.second_factors import (
    RECOVERY_CODES,
    begin_passkey,
    factors_of,
    has_factor,
    new_totp_secret,
    totp_address,
    why_no_passkeys,
)
from lifecycle.authority.sessions import sessions_of
from lifecycle.core.errors import NotFound
from lifecycle.pages.authority.forms import NewPasskeyForm, TotpForm
from lifecycle.pages.authority.second_factor import forget_proofs
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import reader

_SESSIONS_MAX: Final = 50  # shown; *End all others* ends every one
_NEW_PASSKEY: Final = "new_passkey"  # state in the session
_NEW_PASSKEY_S: Final = 5 * 60  # a person has this long to answer the browser's questions


@require_safe
def security(request: HttpRequest) -> HttpResponse:
    """Show the reader's sessions, and how the reader signs in."""
    return _page(request)


def _page(request: HttpRequest, *, codes: list[str] | None = None) -> HttpResponse:
    user = reader(request)
    factors = factors_of(user)
    context = {
        "sessions": list(sessions_of(user)[:_SESSIONS_MAX]),
        "here_key": request.session.session_key,
        "idle_hours": settings.SESSION_IDLE_HOURS,
        "max_days": round(settings.SESSION_MAX_HOURS / 24),
        "factors": factors,
        "has_password": user.has_usable_password(),
        "reset": why_reset(user),
        "is_owed": getattr(request.session, "owes_second_factor", False) and not factors,
        "why_not_remove": services.why_not_remove_factor(user, factors) if factors else None,
        "why_no_passkeys": why_no_passkeys(),
        "codes": codes or [],
        "codes_total": RECOVERY_CODES,
    }
    return render(request, "lifecycle/authority/security.html", context)


def _to_confirm(request: HttpRequest, user: User) -> HttpResponse | None:
    """Return the way to the form that asks who the reader is, or None when the reader just proved it."""
    if services.why_not_change_factors(user) is None:
        return None
    back = request.path if request.method in {"GET", "HEAD"} else reverse("lifecycle:security")
    messages.info(request, "Confirm that it is you first.")
    return redirect(f"{reverse('lifecycle:confirm')}?{urlencode({'next': back})}")


@never_cache  # the page contains the secret, and after it the recovery codes
@require_http_methods(["GET", "HEAD", "POST"])
def totp(request: HttpRequest) -> HttpResponse:
    """Show a new secret for an authenticator app, and take the first code of it."""
    user = reader(request)
    if (away := _to_confirm(request, user)) is not None:
        return away
    if request.method == "POST":
        form = TotpForm(request.POST)
        if form.is_valid():
            with errors_shown_on(form, "code"):
                codes = services.add_totp(actor=user, key=request.session.session_key, **form.cleaned_data)
                return _added(request, codes, "Authenticator app set up.")
    else:
        form = TotpForm(initial={"secret": new_totp_secret()})
    secret = str(form["secret"].value() or "")
    context = {"form": form, "secret": secret, "picture": _picture(totp_address(user, secret))}
    return render(request, "lifecycle/authority/totp.html", context, status=422 if form.errors else 200)


def _picture(address: str) -> str:
    """Return the QR code of an address as a data: URL. The policy of pages allows these for images."""
    picture = BytesIO()
    qrcode.make(address, image_factory=SvgPathImage).save(picture)
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.getvalue()).decode()}"


def _added(request: HttpRequest, codes: list[str], words: str) -> HttpResponse:
    """Show new recovery codes, or lead back. The session gets another key with the change, as after a sign-in."""
    request.session.cycle_key()
    request.session.owes_second_factor = False  # type: ignore[attr-defined]  # of our engine
    if codes:
        return _page(request, codes=codes)
    messages.success(request, words)
    return redirect("lifecycle:security")


@never_cache  # the response can contain recovery codes
@require_http_methods(["GET", "HEAD", "POST"])
def new_passkey(request: HttpRequest) -> HttpResponse:
    """Let the browser make a passkey, and add it."""
    user = reader(request)
    if (away := _to_confirm(request, user)) is not None:
        return away
    form = NewPasskeyForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "name"):
            name, response = form.cleaned_data["name"], form.cleaned_data["credential"]
            key = request.session.session_key
            _, codes = services.add_passkey(actor=user, name=name, state=_state(request), response=response, key=key)
            return _added(request, codes, "Passkey added.")
    options, state = begin_passkey(user)
    request.session[_NEW_PASSKEY] = state
    context = {"form": form, "options": json.dumps(options), "why_not": why_no_passkeys()}
    return render(request, "lifecycle/authority/new_passkey.html", context, status=422 if form.errors else 200)


def _state(request: HttpRequest) -> dict[str, Any]:
    """Return the challenge of the form, once; {} for an old one, which no response matches."""
    state = request.session.pop(_NEW_PASSKEY, None)
    return state if isinstance(state, dict) and time.time() - state["at"] < _NEW_PASSKEY_S else {}


@require_http_methods(["GET", "HEAD", "POST"])
def remove_totp(request: HttpRequest) -> HttpResponse:
    """Ask for confirmation, then remove the authenticator app."""
    user = reader(request)
    factors = factors_of(user)
    if factors.totp is None:
        raise NotFound("You have no authenticator app.")
    if (away := _to_confirm(request, user)) is not None:
        return away
    if request.method == "POST":
        services.remove_totp(actor=user, key=request.session.session_key)
        return _removed(request, user, "Authenticator app removed.")
    context = {"what": "the authenticator app", "why_not": services.why_not_remove_factor(user, factors)}
    return render(request, "lifecycle/authority/remove_factor.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def remove_passkey(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then remove a passkey."""
    user = reader(request)
    factors = factors_of(user)
    passkey = next((row for row in factors.passkeys if row.pk == pk), None)
    if passkey is None:
        raise NotFound("Passkey not found, or you don't have access.")
    if (away := _to_confirm(request, user)) is not None:
        return away
    if request.method == "POST":
        services.remove_passkey(pk, actor=user, key=request.session.session_key)
        return _removed(request, user, f"Passkey {passkey.name} removed.")
    context = {"what": f"the passkey {passkey.name}", "why_not": services.why_not_remove_factor(user, factors)}
    return render(request, "lifecycle/authority/remove_factor.html", context)


def _removed(request: HttpRequest, user: User, words: str) -> HttpResponse:
    if not has_factor(user):
        forget_proofs(request)
    request.session.cycle_key()
    messages.success(request, words)
    return redirect("lifecycle:security")


@never_cache  # the response contains the codes
@require_POST
def recovery_codes(request: HttpRequest) -> HttpResponse:
    """Replace the recovery codes. Only this response contains the new ones."""
    user = reader(request)
    if (away := _to_confirm(request, user)) is not None:
        return away
    codes = services.make_recovery_codes(actor=user, key=request.session.session_key)
    return _page(request, codes=codes)


@require_POST
def end_session(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """End one session of the reader: this one signs out."""
    row = services.end_session(public_id, actor=reader(request))
    if row.session_key == request.session.session_key:
        request.session.flush()
        return redirect("account_login")
    messages.success(request, "Session ended.")
    return redirect("lifecycle:security")


@require_POST
def end_others(request: HttpRequest) -> HttpResponse:
    """End every session of the reader but this one."""
    count = services.end_other_sessions(actor=reader(request), except_key=request.session.session_key)
    messages.success(request, "1 other session ended." if count == 1 else f"{count} other sessions ended.")
    return redirect("lifecycle:security")
