"""The list of teams, and the page of one team: members, robots, environments, and the access check."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority import services
from lifecycle.authority.access import grant_in, registries_to_choose, team_for
from lifecycle.authority.explaining import Answer, explain
from lifecycle.authority.forms import WhyForm
from lifecycle.authority.queries import grants_in, robots_in, teams_where, teams_with_counts
from lifecycle.authority.rights import is_above_grants, require
from lifecycle.authority.services.moving import what_moves
from lifecycle.authority.services.teams import contents_of, verb_to_revoke, why_not_delete_team
from lifecycle.core.errors import NotPermitted
from lifecycle.core.paging import keyset_page
from lifecycle.environments.models import Environment
from lifecycle.pages.authority import page_queries
from lifecycle.pages.authority.forms import (
    EnvironmentForm,
    GroupGrantForm,
    MemberForm,
    MoveForm,
    RobotForm,
    TeamForm,
    TeamNameForm,
)
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader, sort_of

_TABS: Final = ("members", "robots", "environments", "builder", "why", "settings")


@require_http_methods(["GET", "HEAD", "POST"])
def teams(request: HttpRequest) -> HttpResponse:
    """List the teams that the reader can see, or create a team (admins only)."""
    user = reader(request)
    form = TeamForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "slug"):
            new_team = services.create_team(actor=user, slug=form.cleaned_data["slug"], name=form.cleaned_data["name"])
            messages.success(request, f"Team {new_team} created. You are its owner.")
            return redirect("lifecycle:team", new_team.slug)
    sort, order = sort_of(request, {"name": ("slug", "id"), "created": ("-created_at", "-id")})
    context = {
        "page": keyset_page(teams_with_counts(user), order, **cursors(request)),
        "sort": sort,
        "form": form,
        "is_admin": is_above_grants(user),
    }
    return render(request, "lifecycle/authority/teams.html", context, status=422 if form.errors else 200)


def team_page(request: HttpRequest, team: Team, tab: str, *, status: int = 200, **forms: Form) -> HttpResponse:
    """Return the page of a team at one tab. `forms` replace the empty forms, to show their errors."""
    user = reader(request)
    environments = list(Environment.objects.filter(team=team).order_by("position"))
    context: dict[str, Any] = {
        "team": team,
        "tab": tab,
        "environments": environments,
        **page_queries.rights_over(user, team),
        **page_queries.counts_of(team),
    }
    if tab == "members":
        rows = grants_in(team).exclude(user__kind=User.Kind.ROBOT)
        context |= {"page": keyset_page(rows, ("holder_name", "id"), **cursors(request)), "form": MemberForm(team)}
        context["group_form"] = GroupGrantForm(team) if context["manages_team"] else None
    elif tab == "robots":
        rows_of_robots = robots_in(team)
        context |= {"page": keyset_page(rows_of_robots, ("name", "id"), **cursors(request)), "form": RobotForm()}
    elif tab == "environments":
        context["form"] = EnvironmentForm(registries=registries_to_choose(user))
    elif tab == "builder":
        context |= page_queries.builder_of(user, team)
    elif tab == "settings":
        context |= {
            "form": TeamNameForm(initial={"name": team.name}),
            "contents": contents_of(team),
            "why_not_delete": why_not_delete_team(user, team),
        }
    else:
        is_sent = request.GET.get("who") is not None
        form = WhyForm(environments, request.GET if is_sent else None, initial={"who": user.username})
        answer = _answer(form, team, environments) if is_sent and form.is_valid() else None
        context |= {"form": form, "answer": answer}
    return render(request, "lifecycle/authority/team.html", context | forms, status=status)


def _answer(form: WhyForm, team: Team, environments: list[Environment]) -> Answer:
    cleaned = form.cleaned_data
    chosen = next((environment for environment in environments if environment.slug == cleaned["environment"]), None)
    return explain(cleaned["who"], Verb(cleaned["verb"]), team=team, family=cleaned["repository"], environment=chosen)


@require_safe
def team(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one team at the tab `?tab`."""
    tab = request.GET.get("tab", "")
    return team_page(request, team_for(reader(request), slug), tab if tab in _TABS else _TABS[0])


@require_POST
def rename(request: HttpRequest, slug: str) -> HttpResponse:
    """Change the display name of the team."""
    user = reader(request)
    team = team_for(user, slug)
    require(user, Verb.TEAM_MANAGE, team=team)
    form = TeamNameForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "name"):
            services.rename_team(team.pk, actor=user, name=form.cleaned_data["name"])
            messages.success(request, "Name saved.")
            return redirect(f"{reverse('lifecycle:team', args=[slug])}?tab=settings")
    return team_page(request, team, "settings", form=form, status=422)


@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask for confirmation, with what the team still has, then delete it."""
    user = reader(request)
    team = team_for(user, slug)
    if request.method == "POST":
        services.delete_team(team.pk, actor=user)
        messages.success(request, f"Team {slug} deleted.")
        return redirect("lifecycle:teams")
    if not is_above_grants(user):
        raise NotPermitted("Only admins can delete teams. Ask an admin.")
    context = {"team": team, "contents": contents_of(team), "why_not": why_not_delete_team(user, team)}
    return render(request, "lifecycle/authority/delete_team.html", context | page_queries.counts_of(team))


@require_http_methods(["GET", "HEAD", "POST"])
def move(request: HttpRequest, slug: str) -> HttpResponse:
    """List the repositories of the team with what stands on them, and move some to another team."""
    user = reader(request)
    team = team_for(user, slug)
    require(user, Verb.TEAM_MANAGE, team=team)
    moving = what_moves(team)
    slugs = teams_where(user, Verb.TEAM_MANAGE).exclude(pk=team.pk).order_by("slug").values_list("slug", flat=True)
    names = [one.repository.name for one in moving]
    form = MoveForm(list(slugs), names, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "names"):
            to = form.cleaned_data["to"]
            moved = services.move_repositories(team.pk, actor=user, to=to, names=form.cleaned_data["names"])
            words = "1 repository" if len(moved) == 1 else f"{len(moved)} repositories"
            messages.success(request, f"{words} moved to {to}.")
            return redirect(f"{reverse('lifecycle:team', args=[slug])}?tab=settings")
    context = {"team": team, "moving": moving, "form": form, "chosen": request.POST.getlist("names")}
    return render(request, "lifecycle/authority/move.html", context, status=422 if form.errors else 200)


@require_POST
def add_member(request: HttpRequest, slug: str) -> HttpResponse:
    """Grant a person a role in the team."""
    user = reader(request)
    team = team_for(user, slug)
    require(user, Verb.TEAM_MANAGE, team=team)  # before the form shows whether the account exists
    form = MemberForm(team, request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            grant = services.add_member(team.pk, actor=user, username=form.cleaned_data["username"], **form.scope())
            messages.success(request, f"Role {grant.role} granted to {grant.user}.")
            return redirect("lifecycle:team", slug)
    return team_page(request, team, "members", form=form, status=422)


@require_POST
def add_group(request: HttpRequest, slug: str) -> HttpResponse:
    """Grant a group a role in the team."""
    user = reader(request)
    team = team_for(user, slug)
    require(user, Verb.TEAM_MANAGE, team=team)
    form = GroupGrantForm(team, request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            grant = services.add_group(team.pk, actor=user, group=form.cleaned_data["group"], **form.scope())
            messages.success(request, f"Role {grant.role} granted to group {form.cleaned_data['group']}.")
            return redirect("lifecycle:team", slug)
    return team_page(request, team, "members", group_form=form, status=422)


@require_http_methods(["GET", "HEAD", "POST"])
def revoke_grant(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Ask for confirmation, then revoke a grant."""
    user = reader(request)
    team = team_for(user, slug)
    grant = grant_in(team, pk)
    if request.method == "POST":
        services.revoke_grant(pk, actor=user, team_id=team.pk)
        messages.success(request, f"Role {grant.role} revoked from {grant.holder}.")
        robot = getattr(grant.user, "robot", None)
        return redirect("lifecycle:robot", slug, robot.pk) if robot is not None else redirect("lifecycle:team", slug)
    require(user, verb_to_revoke(grant), team=team)
    return render(request, "lifecycle/authority/revoke_grant.html", {"team": team, "grant": grant})


@require_POST
def create_environment(request: HttpRequest, slug: str) -> HttpResponse:
    """Add an environment at the end of the team's promotion path."""
    user = reader(request)
    team = team_for(user, slug)
    require(user, Verb.ENVIRONMENT_MANAGE, team=team)
    form = EnvironmentForm(request.POST, registries=registries_to_choose(user))
    if form.is_valid():
        with errors_shown_on(form):
            environment = services.create_environment(
                team,
                actor=user,
                slug=form.cleaned_data["slug"],
                name=form.cleaned_data["name"] or form.cleaned_data["slug"],
                prefix=form.cleaned_data["target_prefix"],
                required_approvals=form.cleaned_data["required_approvals"],
                registry=form.cleaned_data.get("registry", ""),
            )
            messages.success(request, f"Environment {environment} created as the last one.")
            return redirect(f"{request.path.removesuffix('environments/')}?tab=environments")
    return team_page(request, team, "environments", form=form, status=422)
