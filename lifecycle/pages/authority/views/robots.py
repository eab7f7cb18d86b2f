"""The page of one robot: its grants and its tokens, made and ended."""

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
from lifecycle.authority.rights import may, require
from lifecycle.core.paging import keyset_page
from lifecycle.pages.authority.forms import GrantForm, RobotForm, TokenForm
from lifecycle.pages.authority.views.teams import team_page
from lifecycle.pages.requests import cursors, reader


@require_POST
def create(request: HttpRequest, slug: str) -> HttpResponse:
    """Make a robot, and go to its page."""
    user = reader(request)
    team = team_for(user, slug)
    require(user, Verb.ROBOT_MANAGE, team=team)
    form = RobotForm(request.POST)
    if not form.is_valid():
        return team_page(request, team, "robots", form=form, status=422)
    made = services.create_robot(team.pk, actor=user, name=form.cleaned_data["name"])
    return redirect("lifecycle:robot", slug, made.pk)


def _page(
    request: HttpRequest, team: Team, found: Robot, *, status: int = 200, secret: str = "", **forms: Form
) -> HttpResponse:
    user = reader(request)
    tokens = live_tokens().filter(user=found.user)
    context = {
        "team": team,
        "robot": found,
        "grants": grants_in(team).filter(user=found.user).order_by("pk"),
        "page": keyset_page(tokens, ("-id",), **cursors(request)),
        "manages_robots": bool(may(user, Verb.ROBOT_MANAGE, team=team)),
        "grant_form": GrantForm(team, prefix="grant"),
        "token_form": TokenForm(),
        "secret": secret,
        **forms,
    }
    return render(request, "lifecycle/authority/robot.html", context, status=status)


@require_safe
def robot(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Show a robot of a team to who sees the team."""
    team = team_for(reader(request), slug)
    return _page(request, team, robot_in(team, pk))


def _managed(request: HttpRequest, slug: str, pk: int) -> tuple[Team, Robot]:
    """Return team and robot for who manages the team's robots; raises NotFound or NotPermitted."""
    team = team_for(reader(request), slug)
    found = robot_in(team, pk)
    require(reader(request), Verb.ROBOT_MANAGE, team=team)
    return team, found


@require_POST
def grant(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Give a robot a role."""
    team, found = _managed(request, slug, pk)
    form = GrantForm(team, request.POST, prefix="grant")
    if not form.is_valid():
        return _page(request, team, found, grant_form=form, status=422)
    services.grant_robot(pk, actor=reader(request), **form.scope())
    return redirect("lifecycle:robot", slug, pk)


@never_cache  # the answer holds the token
@require_POST
def create_token(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Make a token of a robot; its text is in this answer and nowhere else."""
    team, found = _managed(request, slug, pk)
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, team, found, token_form=form, status=422)
    _row, text = services.create_robot_token(pk, actor=reader(request), **form.cleaned_data)
    return _page(request, team, found, secret=text)


@require_POST
def revoke_token(request: HttpRequest, slug: str, pk: int, token: int) -> HttpResponse:
    """End one token of a robot."""
    _managed(request, slug, pk)
    services.revoke_robot_token(pk, token, actor=reader(request))
    messages.success(request, "The token is revoked.")
    return redirect("lifecycle:robot", slug, pk)


@require_http_methods(["GET", "HEAD", "POST"])
def retire(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Ask whether to end a robot, and do it."""
    team, found = _managed(request, slug, pk)
    if request.method == "POST":
        services.retire_robot(pk, actor=reader(request))
        messages.success(request, f"{found} has ended; its tokens are revoked.")
        return redirect("lifecycle:robot", slug, pk)
    return render(request, "lifecycle/authority/retire_robot.html", {"team": team, "robot": found})
