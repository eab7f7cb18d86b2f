"""The way of a browser through a provider and back, and the identities of an account.

What has to survive the way is in a signed cookie of this browser, so that a start writes nothing, and an answer counts
only in the browser that asked.
"""

from __future__ import annotations

import re
from typing import Any, Final

from allauth.account.utils import perform_login
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts.models import User
from lifecycle.authority import limiter
from lifecycle.authority.confirming import confirm_password, why_not_without_password
from lifecycle.authority.proofs import FRESH_S, why_not_confirmed
from lifecycle.authority.second_factors import has_factor
from lifecycle.authority.services import note_confirmed
from lifecycle.core import clock, context
from lifecycle.core.errors import ConfirmationRequired, Malformed, NotPermitted, UpstreamError
from lifecycle.core.reasons import Reason
from lifecycle.oidc.client import address_to_ask, code_of, new_attempt, redeem
from lifecycle.oidc.types import Attempt, InvalidToken, Person
from lifecycle.pages.authority.second_factor import record_proof
from lifecycle.pages.requests import reader
from lifecycle.sso import provisioning, services
from lifecycle.sso.models import IdentityProvider
from lifecycle.sso.queries import callback_of, enabled_provider, enabled_providers, identities_of, secret_of

_COOKIE_S: Final = 600  # seconds that a person has at the provider
_LINK_S: Final = 300  # to confirm
_ATTEMPT_SALT: Final = "lifecycle.sso.attempt"
_LINK_SALT: Final = "lifecycle.sso.link"
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{20,100}")
_UNKNOWN_WAY: Final = "This sign-in took too long, or was started in another browser. Start again."
_NOT_PROVEN: Final = "The provider did not prove who you are. Start again, or ask an admin to look at the audit log."


@login_not_required  # visitors sign in here
@never_cache
@require_safe
def start(request: HttpRequest, slug: str) -> HttpResponse:
    """Send the browser to the provider.

    With `?link`, a signed-in person links the identity that comes back. With `?confirm`, the person proves with one of
    theirs who they are.
    """
    provider = enabled_provider(slug)
    is_link = "link" in request.GET and request.user.is_authenticated
    is_again = "confirm" in request.GET and request.user.is_authenticated
    if is_link and (why_not := _why_not_link(reader(request))) is not None:
        return _first_confirm(request, why_not.text)
    attempt = new_attempt()
    try:
        known = services.discovered(provider)
    except (UpstreamError, Malformed) as error:
        return _refused(request, provider, error.message, status=502)
    asked = address_to_ask(
        known, attempt, client_id=provider.client_id, scopes=provider.scopes, callback=callback_of(slug),
        max_age_s=FRESH_S if is_again else None,
    )  # fmt: skip
    response = redirect(asked)
    kept = {
        "state": attempt.state,
        "nonce": attempt.nonce,
        "verifier": attempt.verifier,
        "next": _next(request),
        "link": reader(request).pk if is_link else None,
        "confirm": reader(request).pk if is_again else None,
    }
    response.set_cookie(
        _cookie(attempt.state), signing.dumps(kept, salt=_ATTEMPT_SALT + slug), max_age=_COOKIE_S,
        path=reverse("lifecycle:sso-callback", args=[slug]), httponly=True, samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
    )  # fmt: skip
    return response


@login_not_required  # visitors come back from the provider here
@never_cache
@require_safe
def callback(request: HttpRequest, slug: str) -> HttpResponse:
    """Take the answer of the provider: verify it, then sign the person in, or do what the way was for."""
    provider = enabled_provider(slug)
    state = request.GET.get("state", "")
    name = _cookie(state) if _STATE.fullmatch(state) else ""
    try:
        kept = signing.loads(request.COOKIES.get(name, ""), salt=_ATTEMPT_SALT + slug, max_age=_COOKIE_S)
    except signing.BadSignature:
        return _refused(request, provider, _UNKNOWN_WAY)
    response = _answered(request, provider, kept)
    response.delete_cookie(name, path=reverse("lifecycle:sso-callback", args=[slug]), samesite="Lax")
    return response


def _answered(request: HttpRequest, provider: IdentityProvider, kept: dict[str, Any]) -> HttpResponse:
    """Return the page or redirect that answers a browser with the cookie `kept`. A failed proof is counted."""
    tried = limiter.reserve("", context.current().address)
    if tried is None:
        return _refused(request, provider, "Too many failed sign-ins from your address. Wait five minutes.", status=429)
    attempt = Attempt(kept["state"], kept["nonce"], kept["verifier"])
    try:
        person = _proven(request, provider, attempt)
    except InvalidToken as error:
        services.note_refusal(provider, error.message)
        return _refused(request, provider, _NOT_PROVEN)
    except (UpstreamError, Malformed) as error:
        return _refused(request, provider, error.message, status=502)
    tried.succeeded()
    if kept["link"] is not None:
        return _ask_to_link(request, provider, person, kept["link"])
    if kept.get("confirm") is not None:
        return _confirmed(request, provider, person, kept)
    return _come_in(request, provider, person, kept["next"])


def _come_in(request: HttpRequest, provider: IdentityProvider, person: Person, address: str) -> HttpResponse:
    user, problem = None, ""
    try:
        user, problem = provisioning.sign_in(person, provider)
    except NotPermitted as error:
        problem = error.message
    if user is None or problem:
        services.note_refusal(provider, problem, user=user)
        return _refused(request, provider, problem)
    record_proof(request, user, "sso")
    return perform_login(request, user, email_verification="none", redirect_url=address)  # type: ignore[no-any-return]  # allauth has no type information


def _confirmed(request: HttpRequest, provider: IdentityProvider, person: Person, kept: dict[str, Any]) -> HttpResponse:
    """Remember the proof, if it is a fresh one of the account that asked. The session gets another key (ASVS 7.2.4)."""
    if not request.user.is_authenticated or reader(request).pk != kept["confirm"]:
        return _refused(request, provider, _UNKNOWN_WAY)
    user = reader(request)
    problem = ""
    if not identities_of(user).filter(issuer=person.issuer, subject=person.subject).exists():
        problem = f"You signed in at {provider.name} as somebody else. Sign in there as yourself."
    asked_at = person.id_token.get("auth_time")
    if isinstance(asked_at, int | float) and clock.now().timestamp() - asked_at > FRESH_S:
        problem = f"{provider.name} did not ask you to sign in again. Sign out there, and start again."
    try:
        if not problem:  # what the claims of now do not give any more ends
            problem = provisioning.sign_in(person, provider)[1]
    except NotPermitted as error:
        problem = error.message
    if problem:
        services.note_refusal(provider, problem, user=user)
        return _refused(request, provider, problem)
    note_confirmed(user, "sso")
    record_proof(request, user, "sso")
    request.session.cycle_key()
    return redirect(kept["next"])


def _why_not_link(user: User) -> Reason | None:
    """Return why the person must prove who they are before they go to the provider; the password is asked for after."""
    return why_not_confirmed(has_factor=True) if has_factor(user) else why_not_without_password(user)


def _first_confirm(request: HttpRequest, words: str) -> HttpResponse:
    """Lead to a proof of who the reader is, and then back to the identities of the account."""
    messages.info(request, words)
    return redirect(f"{reverse('lifecycle:confirm')}?{urlencode({'next': reverse('lifecycle:identities')})}")


def _proven(request: HttpRequest, provider: IdentityProvider, attempt: Attempt) -> Person:
    known = services.discovered(provider)
    return redeem(
        code_of(request.GET.dict(), known, attempt),
        provider=known,
        attempt=attempt,
        client_id=provider.client_id,
        client_secret=secret_of(provider),
        callback=callback_of(provider.slug),
        http=services.http(),
    )


def _ask_to_link(request: HttpRequest, provider: IdentityProvider, person: Person, user_id: int) -> HttpResponse:
    """Show whom the provider proved. Only a click of the same account links it: its session may be at another one."""
    if not request.user.is_authenticated or reader(request).pk != user_id:
        return _refused(request, provider, _UNKNOWN_WAY)
    claims = person.claims()
    proven = {"iss": person.issuer, "sub": person.subject, "mail": person.verified_mail, "user": user_id}
    shown = claims.get("preferred_username") or claims.get("email") or person.subject
    values = {
        "provider": provider,
        "shown": str(shown)[:150],
        "proof": signing.dumps(proven, salt=_LINK_SALT + provider.slug),
        "asks_password": reader(request).has_usable_password() and not has_factor(reader(request)),
    }
    return render(request, "lifecycle/sso/link.html", values)


@never_cache
@require_POST
def link(request: HttpRequest, slug: str) -> HttpResponse:
    """Link the identity that was proven a moment ago to the reader's account, after the password or another proof."""
    user, provider = reader(request), enabled_provider(slug)
    try:
        proven = signing.loads(request.POST.get("proof", ""), salt=_LINK_SALT + slug, max_age=_LINK_S)
    except signing.BadSignature:
        proven = {}
    if proven.get("user") != user.pk:
        messages.error(request, _UNKNOWN_WAY)
        return redirect("lifecycle:identities")
    claims = {"email": proven["mail"], "email_verified": bool(proven["mail"])}
    person = Person(proven["iss"], proven["sub"], claims, {})
    try:
        if not has_factor(user):  # else the service asks for it
            confirm_password(user, request.POST.get("password", ""))
        services.link_own(person, provider, actor=user, key=request.session.session_key)
    except ConfirmationRequired as error:
        return _first_confirm(request, error.message)
    request.session.cycle_key()
    messages.success(request, f"You can now sign in with {provider.name}.")
    return redirect("lifecycle:identities")


@require_safe
def identities(request: HttpRequest) -> HttpResponse:
    """Show the identities of the reader, and the providers to link."""
    own = list(identities_of(reader(request)))
    providers = list(enabled_providers())
    names = {provider.issuer: provider.name for provider in providers}
    context = {
        "identities": [(identity, names.get(identity.issuer, identity.issuer)) for identity in own],
        "providers": [each for each in providers if each.issuer not in {identity.issuer for identity in own}],
    }
    return render(request, "lifecycle/sso/identities.html", context)


@require_POST
def unlink(request: HttpRequest, pk: int) -> HttpResponse:
    """Unlink an identity of the reader."""
    services.unlink(pk, actor=reader(request))
    messages.success(request, "Unlinked. The groups and roles that came with it ended.")
    return redirect("lifecycle:identities")


def _refused(request: HttpRequest, provider: IdentityProvider, why: str, *, status: int = 403) -> HttpResponse:
    return render(request, "lifecycle/sso/refused.html", {"provider": provider, "why": why}, status=status)


def _cookie(state: str) -> str:
    return f"gd_sso_{state[:16]}"


def _next(request: HttpRequest) -> str:
    address = request.GET.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    return address if is_ours and len(address) <= 1000 else settings.LOGIN_REDIRECT_URL
