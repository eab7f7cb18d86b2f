"""The page of a person, and pages for admins: list, create, reset, deactivate and reactivate accounts."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Robot, User
from lifecycle.authority import services
from lifecycle.authority.access import people_for, person_for
from lifecycle.authority.models import HeldGrant
from lifecycle.authority.queries import live_tokens, teams_visible_to
from lifecycle.authority.resets import why_reset
from lifecycle.authority.rights import is_above_grants
from lifecycle.authority.second_factors import factors_of
from lifecycle.authority.sessions import sessions_of
from lifecycle.core import clock
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.pages.authority.forms import PersonForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader, sort_of

_SEARCH_MAX = 150  # characters, as in a user name
_SESSIONS_MAX = 50  # shown; all can be ended


def _require_admin(request: HttpRequest) -> User:
    user = reader(request)
    people_for(user)
    return user


def _page(
    request: HttpRequest, form: PersonForm, *, made: User | None = None, secret: str = "", status: int = 200
) -> HttpResponse:
    rows, text = people_for(reader(request)), request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        rows = rows.filter(username__icontains=text)
    sort, order = sort_of(request, {"name": ("username", "id"), "created": ("-date_joined", "-id")})
    context = {
        "page": keyset_page(rows, order, **cursors(request)),
        "sort": sort,
        "q": text,
        "form": form,
        "made": made,
        "secret": secret,
        "secret_kind": _kind_of(secret),
    }
    return render(request, "lifecycle/authority/people.html", context, status=status)


@never_cache  # the response to a new account contains its invitation or password
@require_http_methods(["GET", "HEAD", "POST"])
def people(request: HttpRequest) -> HttpResponse:
    """List the accounts of people, or create one. Only this response contains the invitation or password."""
    actor = _require_admin(request)
    form = PersonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "username"):
            user, secret = services.create_person(actor=actor, **form.cleaned_data)
            return _page(request, PersonForm(), made=user, secret=secret)
    return _page(request, form, status=422 if form.errors else 200)


def _person_page(request: HttpRequest, person: User, *, secret: str = "") -> HttpResponse:
    user = reader(request)
    teams = teams_visible_to(user)
    grants = HeldGrant.objects.filter(user=person, team__in=teams)
    grants = grants.select_related("team", "role", "environment", "granted_by", "group__team", "through__team")
    robots = Robot.objects.filter(responsible=person, team__in=teams)
    context: dict[str, Any] = {
        "person": person,
        "reset": why_reset(person),
        "grants": grants.order_by("team__slug", "role__slug", "pk", "through"),
        "robots": robots.select_related("user", "team").order_by("pk"),
        "is_admin": is_above_grants(user),
        "factors": factors_of(person) if is_above_grants(user) else None,
        "tokens": {"rows": list(live_tokens().filter(user=person).order_by("-pk")[:_SESSIONS_MAX])}
        if is_above_grants(user)
        else {"rows": []},
        "sessions": list(sessions_of(person)[:_SESSIONS_MAX]) if is_above_grants(user) else [],
        "link": person.links.filter(ended_at=None, expires_at__gt=clock.now()).order_by("-pk").first(),
        "secret": secret,
        "secret_kind": _kind_of(secret),
    }
    return render(request, "lifecycle/authority/person.html", context)


def _kind_of(secret: str) -> str:
    return "link" if secret.startswith(("http://", "https://")) else "password"


@require_safe
def person(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one person: name, mail, roles in teams that the reader sees, and what admins can do."""
    return _person_page(request, person_for(reader(request), pk))


@never_cache  # the response contains the new link or password
@require_POST
def reset_password(request: HttpRequest, pk: int) -> HttpResponse:
    """Reset a password. Only this response contains the link, or the password that must be changed."""
    actor = _require_admin(request)
    user, secret = services.reset_password(pk, actor=actor, with_password=bool(request.POST.get("with_password")))
    return _person_page(request, user, secret=secret)


@require_POST
def set_admin(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a person an admin (`is_admin=1`), or end that."""
    user = services.set_admin(pk, actor=_require_admin(request), is_admin=bool(request.POST.get("is_admin")))
    messages.success(request, f"{user} is {'now' if user.is_superuser else 'no longer'} an admin.")
    return redirect("lifecycle:person", pk)


@require_POST
def verify_mail(request: HttpRequest, pk: int) -> HttpResponse:
    """Record that the mail of an account belongs to its person."""
    user = services.verify_mail(pk, actor=_require_admin(request))
    messages.success(request, f"Mail of {user} confirmed.")
    return redirect("lifecycle:person", pk)


@require_POST
def reset_factors(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove every second factor of a person who lost them."""
    user = services.reset_factors(pk, actor=reader(request))
    messages.success(request, f"Second factors of {user} removed. All sessions and tokens ended.")
    return redirect("lifecycle:person", pk)


@require_POST
def end_sessions(request: HttpRequest, pk: int) -> HttpResponse:
    """End every browser session of a person."""
    count = services.end_sessions_of(pk, actor=reader(request))
    messages.success(request, "1 session ended." if count == 1 else f"{count} sessions ended.")
    return redirect("lifecycle:person", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def deactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then deactivate an account."""
    actor = _require_admin(request)
    if request.method == "POST":
        user = services.deactivate(pk, actor=actor)
        messages.success(request, f"{user} deactivated. All sessions and tokens are revoked.")
        return redirect("lifecycle:people")
    person = User.objects.filter(pk=pk, kind=User.Kind.PERSON).first()
    if person is None:
        raise NotFound("Account not found.")
    return render(request, "lifecycle/authority/deactivate.html", {"person": person})


@never_cache  # the response contains the new invitation
@require_POST
def reactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Reactivate an account. Only this response contains the new invitation."""
    user, secret = services.reactivate(pk, actor=_require_admin(request))
    return _page(request, PersonForm(), made=user, secret=secret)
