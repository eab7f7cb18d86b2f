"""Between the click on *Approve* and the vote: sign with a passkey, or prove again who one is, and come back."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode

from accounts.models import User
from lifecycle.authority.second_factors import has_factor, request_options
from lifecycle.core.errors import LifecycleError, Malformed
from lifecycle.promotion.signed_votes import Signature
from lifecycle.signatures.votes import challenge_of

_STATEMENT: Final = "vote_statement"
_KEPT: Final = "kept_vote"
_TYPED: Final = ("reason", "incident", "environment")  # fields that come back
_LIVES_S: Final = 10 * 60  # a person has this long to sign, or to come back


def is_to_sign(request: HttpRequest, user: User) -> bool:
    """Return whether the reader is asked to sign: they have a passkey, and did neither sign nor decline yet."""
    if request.POST.get("assertion") or request.POST.get("unsigned"):
        return False
    return user.passkeys.exists()


def sign_page(request: HttpRequest, user: User, statement: bytes, *, back: str, must_sign: bool) -> HttpResponse:
    """Show what the reader is about to sign. The statement waits in the session: nothing of it comes back."""
    request.session[_STATEMENT] = {"path": request.path, "text": statement.decode(), "at": time.time()}
    content = json.loads(statement)
    context = {
        "content": content,
        "reason": request.POST.get("reason", ""),
        "next": request.POST.get("next", ""),
        "back": back,
        "must_sign": must_sign,
        "options": json.dumps(request_options(user, challenge_of(statement))),
    }
    return render(request, "lifecycle/promotion/sign.html", context)


def signature_in(request: HttpRequest) -> Signature | None:
    """Return the signature of the form with the statement that this session was asked to sign, once; None without.

    Raises Malformed for a response that is no JSON, or without such a statement.
    """
    text = request.POST.get("assertion", "")
    if not text:
        return None
    kept = request.session.pop(_STATEMENT, None)
    if not isinstance(kept, dict) or kept["path"] != request.path or time.time() - kept["at"] > _LIVES_S:
        raise Malformed("The page to sign is too old. Approve again.")
    try:
        return Signature(kept["text"].encode(), json.loads(text[:20_000]))
    except ValueError as error:
        raise Malformed("The browser's response cannot be read. Approve again.") from error


def lead_to_proof(request: HttpRequest, back: str, error: LifecycleError) -> HttpResponse:
    """Lead to the form that asks who the reader is, and then back to `back` with what was typed.

    Who has no second factor is led to set one up.
    """
    user = request.user
    if isinstance(user, User) and not has_factor(user):
        _keep(request, back)
        messages.info(request, error.message)
        return redirect("lifecycle:security")
    return lead_to_confirm(request, back, error.message)


def lead_to_confirm(request: HttpRequest, back: str, words: str) -> HttpResponse:
    """Lead to the form that asks who the reader is, by any proof, and then back to `back` with what was typed."""
    _keep(request, back)
    messages.info(request, words)
    return redirect(f"{reverse('lifecycle:confirm')}?{urlencode({'next': back})}")


def _keep(request: HttpRequest, back: str) -> None:
    typed = {name: request.POST[name][:2000] for name in _TYPED if request.POST.get(name)}
    request.session[_KEPT] = {"path": back.partition("?")[0], "typed": typed, "at": time.time()}


def kept_input(request: HttpRequest) -> dict[str, Any]:
    """Return what the reader had typed on this page before they were led away, once; {} without."""
    kept = request.session.get(_KEPT)
    if request.method != "GET" or not isinstance(kept, dict) or kept["path"] != request.path:
        return {}
    del request.session[_KEPT]
    return dict(kept["typed"]) if time.time() - kept["at"] < _LIVES_S else {}
