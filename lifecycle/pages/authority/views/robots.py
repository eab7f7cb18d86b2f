"""The page of one robot, and actions on its grants and tokens."""

from __future__ import annotations

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Robot, Team
from accounts.verbs import Verb
from lifecycle.authority import services
from lifecycle.authority.access import robot_in, team_for
from lifecycle.authority.queries import grants_in, live_tokens
from lifecycle.authority.rights import may, not_effective, require, why_suspended
from lifecycle.authority.services import why_not_taken_over
from lifecycle.core.paging import keyset_page
from lifecycle.pages.authority.forms import RobotForm, RobotGrantForm, RobotTokenForm
from lifecycle.pages.authority.views.teams import team_page
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader


@require_POST
def create(request: HttpRequest, slug: str) -> HttpResponse:
    """Create a robot, and redirect to its page."""
    user = reader(request)
    team = team_for(user, slug)
    require(user, Verb.ROBOT_MANAGE, team=team)
    form = RobotForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "name"):
            new_robot = services.create_robot(team.pk, actor=user, name=form.cleaned_data["name"])
            return redirect("lifecycle:robot", slug, new_robot.pk)
    return team_page(request, team, "robots", form=form, status=422)


def _page(
    request: HttpRequest, team: Team, robot: Robot, *, status: int = 200, secret: str = "", **forms: Form
) -> HttpResponse:
    user = reader(request)
    tokens = live_tokens().filter(user=robot.user)
    grants = list(grants_in(team).filter(user=robot.user).order_by("pk"))
    context = {
        "team": team,
        "robot": robot,
        "grants": grants,
        "page": keyset_page(tokens, ("-id",), **cursors(request)),
        "manages_robots": bool(may(user, Verb.ROBOT_MANAGE, team=team)),
        "grant_form": RobotGrantForm(team, prefix="grant"),
        "token_form": RobotTokenForm(robot),
        "secret": secret,
        "suspended": why_suspended(robot.user) if robot.user.is_active else "",
        "why_not_taken_over": why_not_taken_over(user, robot),
        "not_effective": not_effective(robot, grants),
        **forms,
    }
    return render(request, "lifecycle/authority/robot.html", context, status=status)


@require_safe
def robot(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Show a robot to the users who can see its team."""
    team = team_for(reader(request), slug)
    return _page(request, team, robot_in(team, pk))


def _managed(request: HttpRequest, slug: str, pk: int) -> tuple[Team, Robot]:
    """Return the team and the robot if the reader can manage the team's robots; raises NotFound or NotPermitted."""
    team = team_for(reader(request), slug)
    robot = robot_in(team, pk)
    require(reader(request), Verb.ROBOT_MANAGE, team=team)
    return team, robot


@require_POST
def grant(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Grant a robot a role."""
    team, robot = _managed(request, slug, pk)
    form = RobotGrantForm(team, request.POST, prefix="grant")
    if form.is_valid():
        with errors_shown_on(form):
            services.grant_robot(pk, actor=reader(request), **form.scope())
            return redirect("lifecycle:robot", slug, pk)
    return _page(request, team, robot, grant_form=form, status=422)


@never_cache  # the response contains the token
@require_POST
def create_token(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Create a token of a robot. Only this response contains its text."""
    team, robot = _managed(request, slug, pk)
    form = RobotTokenForm(robot, request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            _row, text = services.create_robot_token(pk, actor=reader(request), **form.cleaned_data)
            return _page(request, team, robot, secret=text)
    return _page(request, team, robot, token_form=form, status=422)


@require_POST
def revoke_token(request: HttpRequest, slug: str, pk: int, token: int) -> HttpResponse:
    """Revoke one token of a robot."""
    _managed(request, slug, pk)
    services.revoke_robot_token(pk, token, actor=reader(request))
    messages.success(request, "Token revoked.")
    return redirect("lifecycle:robot", slug, pk)


@require_POST
def take_over(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Make the reader responsible for a robot."""
    _managed(request, slug, pk)
    robot = services.take_over_robot(pk, actor=reader(request))
    messages.success(request, f"You are responsible for robot {robot}. Your permissions bound those of the robot.")
    return redirect("lifecycle:robot", slug, pk)


@require_http_methods(["GET", "HEAD", "POST"])
def retire(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Ask for confirmation, then deactivate a robot."""
    team, robot = _managed(request, slug, pk)
    if request.method == "POST":
        services.retire_robot(pk, actor=reader(request))
        messages.success(request, f"Robot {robot} deactivated. Its tokens are revoked.")
        return redirect("lifecycle:robot", slug, pk)
    return render(request, "lifecycle/authority/retire_robot.html", {"team": team, "robot": robot})
