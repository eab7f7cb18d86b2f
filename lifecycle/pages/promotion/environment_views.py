"""Pages of one environment, and of windows and holds. Each action calls one service."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.access import registries_to_choose
from lifecycle.authority.queries import environments_visible_to, teams_where
from lifecycle.authority.rights import is_above_grants
from lifecycle.core.errors import NotFound, StaleVersion, StepUpRequired
from lifecycle.core.reasons import refuse_if
from lifecycle.environments.models import Environment
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.promotion.environment_forms import EnvironmentSettingsForm, HoldForm, WindowForm
from lifecycle.pages.promotion.page_queries import places_of_environment
from lifecycle.pages.promotion.signing import lead_to_proof
from lifecycle.pages.requests import reader
from lifecycle.promotion import environments as services
from lifecycle.promotion.approval_rules import why_not_satisfiable
from lifecycle.promotion.holds import holds_on, holds_visible_to, lift_hold, put_hold
from lifecycle.promotion.opening import (
    closed_words,
    create_window,
    delete_window,
    opening_of,
    windows_of,
    windows_visible_to,
)


def _environment(user: User, pk: int) -> Environment:
    row = environments_visible_to(user).filter(pk=pk).first()
    if row is None:
        raise NotFound("Environment not found, or you don't have access.")
    return row


@require_http_methods(["GET", "HEAD", "POST"])
def environment(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the settings of one environment, and change them."""
    user = reader(request)
    row = _environment(user, pk)
    if request.method != "POST":
        return _page(request, row, EnvironmentSettingsForm.of(row, registries_to_choose(user)))
    refuse_if(services.why_not_manage(user, row))
    form = EnvironmentSettingsForm(request.POST, registries=registries_to_choose(user))
    if form.is_valid():
        try:
            with errors_shown_on(form):
                services.change_environment(pk, actor=user, **form.settings())
                messages.success(request, f"Settings of {row} saved.")
                return redirect("lifecycle:environment", pk)
        except StaleVersion as error:
            form.add_error(None, error.message)
        except StepUpRequired as error:
            return lead_to_proof(request, request.path, error)
    return _page(request, row, form, status=422)


def _page(request: HttpRequest, row: Environment, form: EnvironmentSettingsForm, *, status: int = 200) -> HttpResponse:
    user = reader(request)
    context = {
        "environment": row,
        "form": form,
        "why_not": services.why_not_manage(user, row),
        "why_not_remove": services.why_not_remove(user, row),
        "problem": why_not_satisfiable(row),
        "windows": list(windows_of(row)),
        "holds": list(holds_on(row)),
        "closed": closed_words(opening_of(row)),
        "place": f"{row.team.slug}/{row.slug}",
        "places": places_of_environment(row, user),
    }
    return render(request, "lifecycle/promotion/environment.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, with what still stands on the environment, then remove it."""
    user = reader(request)
    row = _environment(user, pk)
    if request.method == "POST":
        services.remove_environment(pk, actor=user)
        messages.success(request, f"Environment {row} removed.")
        return redirect(f"{reverse('lifecycle:environments')}?team={row.team.slug}")
    refuse_if(services.why_not_manage(user, row))
    context = {"environment": row, "why_not": services.why_not_remove(user, row)}
    return render(request, "lifecycle/promotion/remove_environment.html", context)


def _places(user: User) -> list[tuple[str, str]]:
    """Return the places where `user` can set windows and holds: (value, words)."""
    places = [("", "the whole site")] if is_above_grants(user) else []
    teams = list(teams_where(user, Verb.ENVIRONMENT_MANAGE).order_by("slug"))
    rows = Environment.objects.filter(team__in=teams).select_related("team").order_by("position")
    for team in teams:
        places.append((team.slug, f"team {team.slug}"))
        places += [(f"{team.slug}/{row.slug}",) * 2 for row in rows if row.team_id == team.pk]
    return places


@require_safe
def gates(request: HttpRequest) -> HttpResponse:
    """Show the windows and holds that the reader can see."""
    return _gates(request)


def _gates(
    request: HttpRequest, *, window: WindowForm | None = None, hold: HoldForm | None = None, status: int = 200
) -> HttpResponse:
    user = reader(request)
    places = _places(user)
    first: dict[str, Any] = {"place": request.GET.get("place", "")}
    context = {
        "windows": list(windows_visible_to(user).order_by("-pk")[:200]),
        "holds": list(holds_visible_to(user)[:200]),
        "can_set": bool(places),
        "window_form": window or WindowForm(places, initial=first | {"zone": user.time_zone, "allows_rollback": True}),
        "hold_form": hold or HoldForm(places, initial=first),
    }
    return render(request, "lifecycle/promotion/gates.html", context, status=status)


@require_POST
def add_window(request: HttpRequest) -> HttpResponse:
    """Set a window."""
    user = reader(request)
    form = WindowForm(_asked_for(request, user), request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            window = create_window(actor=user, **form.window())
            messages.success(request, f"Window {window} set for {window.place_words}.")
            return redirect("lifecycle:gates")
    return _gates(request, window=form, status=422)


@require_POST
def add_hold(request: HttpRequest) -> HttpResponse:
    """Put promotions on hold, or stop the line (`act=stop`)."""
    user = reader(request)
    form = HoldForm(_asked_for(request, user), request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            hold = put_hold(actor=user, **form.hold(is_stop=request.POST.get("act") == "stop"))
            done = "Line stopped" if hold.is_stop else "Hold set"
            messages.success(request, f"{done} for {hold.place_words}.")
            return redirect("lifecycle:gates")
    return _gates(request, hold=form, status=422)


def _asked_for(request: HttpRequest, user: User) -> list[tuple[str, str]]:
    """Return the reader's places and the one that is asked for: the service refuses it with the reason."""
    place = request.POST.get("place", "")[:200]
    places = _places(user)
    return places if place in dict(places) else [*places, (place, place)]


@require_POST
def remove_window(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove a window."""
    delete_window(pk, actor=reader(request))
    messages.success(request, "Window removed.")
    return redirect("lifecycle:gates")


@require_POST
def lift(request: HttpRequest, pk: int) -> HttpResponse:
    """Lift a hold or a stop."""
    hold = lift_hold(pk, actor=reader(request))
    messages.success(request, f"{'Stop' if hold.is_stop else 'Hold'} lifted for {hold.place_words}.")
    return redirect("lifecycle:gates")
