"""The list of teams, and the page of one: members and grants, robots, environments, and why somebody can't."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority import services
from lifecycle.authority.access import grant_in, team_for
from lifecycle.authority.explaining import Answer, explain
from lifecycle.authority.forms import WhyForm
from lifecycle.authority.queries import grants_in, robots_in, teams_with_counts
from lifecycle.authority.rights import require
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.core.paging import keyset_page
from lifecycle.environments.models import Environment
from lifecycle.pages.authority import page_queries
from lifecycle.pages.authority.forms import EnvironmentForm, MemberForm, RobotForm, TeamForm
from lifecycle.pages.requests import cursors, reader

_TABS: Final = ("members", "robots", "environments", "why")


@require_http_methods(["GET", "HEAD", "POST"])
def teams(request: HttpRequest) -> HttpResponse:
    """List the teams that the reader can see; an admin makes one here."""
    user = reader(request)
    form = TeamForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        made = services.create_team(actor=user, slug=form.cleaned_data["slug"], name=form.cleaned_data["name"])
        messages.success(request, f"Team {made} is there, and you own it.")
        return redirect("lifecycle:team", made.slug)
    context = {
        "page": keyset_page(teams_with_counts(user), ("slug", "id"), **cursors(request)),
        "form": form,
        "is_admin": is_above_grants(user),
    }
    return render(request, "lifecycle/authority/teams.html", context, status=422 if form.errors else 200)


def team_page(request: HttpRequest, team: Team, tab: str, *, status: int = 200, **forms: Form) -> HttpResponse:
    """Return the page of a team at one tab; `forms` are those that came back with errors."""
    user = reader(request)
    places = list(Environment.objects.filter(team=team).order_by("position"))
    context: dict[str, Any] = {
        "team": team,
        "tab": tab,
        "environments": places,
        **page_queries.rights_over(user, team),
        **page_queries.counts_of(team),
    }
    if tab == "members":
        rows = grants_in(team).exclude(user__kind=User.Kind.ROBOT)
        context |= {"page": keyset_page(rows, ("user__username", "id"), **cursors(request)), "form": MemberForm(team)}
    elif tab == "robots":
        rows_of_robots = robots_in(team)
        context |= {"page": keyset_page(rows_of_robots, ("name", "id"), **cursors(request)), "form": RobotForm()}
    elif tab == "environments":
        context["form"] = EnvironmentForm()
    else:
        asked = request.GET.get("who") is not None
        form = WhyForm(places, request.GET if asked else None, initial={"who": user.username})
        context |= {"form": form, "answer": _answer(form, team, places) if asked and form.is_valid() else None}
    return render(request, "lifecycle/authority/team.html", context | forms, status=status)


def _answer(form: WhyForm, team: Team, places: list[Environment]) -> Answer:
    asked = form.cleaned_data
    place = next((place for place in places if place.slug == asked["environment"]), None)
    return explain(asked["who"], Verb(asked["verb"]), team=team, family=asked["repository"], environment=place)


@require_safe
def team(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one team: who holds what there, and what follows from it."""
    tab = request.GET.get("tab", "")
    return team_page(request, team_for(reader(request), slug), tab if tab in _TABS else _TABS[0])


@require_POST
def add_member(request: HttpRequest, slug: str) -> HttpResponse:
    """Give a person a role."""
    user = reader(request)
    found = team_for(user, slug)
    require(user, Verb.TEAM_MANAGE, team=found)  # before the form says whether there is such a person
    form = MemberForm(found, request.POST)
    if not form.is_valid():
        return team_page(request, found, "members", form=form, status=422)
    grant = services.add_member(found.pk, actor=user, username=form.cleaned_data["username"], **form.scope())
    messages.success(request, f"{grant.user} holds {grant.role} now.")
    return redirect("lifecycle:team", slug)


@require_http_methods(["GET", "HEAD", "POST"])
def revoke_grant(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Ask whether to take a grant back, and do it."""
    user = reader(request)
    found = team_for(user, slug)
    grant = grant_in(found, pk)
    if request.method == "POST":
        services.revoke_grant(pk, actor=user, team_id=found.pk)
        messages.success(request, f"{grant.user} does not hold {grant.role} any more.")
        robot = getattr(grant.user, "robot", None)
        return redirect("lifecycle:robot", slug, robot.pk) if robot is not None else redirect("lifecycle:team", slug)
    require(user, Verb.ROBOT_MANAGE if grant.user.kind == User.Kind.ROBOT else Verb.TEAM_MANAGE, team=found)
    return render(request, "lifecycle/authority/revoke_grant.html", {"team": found, "grant": grant})


@require_POST
def create_environment(request: HttpRequest, slug: str) -> HttpResponse:
    """Add an environment at the end of the team's path."""
    user = reader(request)
    found = team_for(user, slug)
    require(user, Verb.ENVIRONMENT_MANAGE, team=found)
    form = EnvironmentForm(request.POST)
    if not form.is_valid():
        return team_page(request, found, "environments", form=form, status=422)
    made = services.create_environment(
        found,
        actor=user,
        slug=form.cleaned_data["slug"],
        name=form.cleaned_data["name"] or form.cleaned_data["slug"],
        prefix=form.cleaned_data["target_prefix"],
        required_approvals=form.cleaned_data["required_approvals"],
    )
    messages.success(request, f"Environment {made} is the last one on the path now.")
    return redirect(f"{request.path.removesuffix('environments/')}?tab=environments")
