"""The page where CI jobs become a robot: its trust rules, a trial, and snippets."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.models import Robot, Team
from accounts.verbs import Verb
from lifecycle.authority.access import robot_in, team_for
from lifecycle.authority.rights import may, require
from lifecycle.core.paging import keyset_page
from lifecycle.keyless import services
from lifecycle.keyless.access import rule_of, rules_of
from lifecycle.pages.authority.keyless_forms import IdentityForm, TrustRuleForm
from lifecycle.pages.authority.snippets import snippets
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader


def _page(request: HttpRequest, team: Team, robot: Robot, *, status: int = 200, **more: Any) -> HttpResponse:
    context = {
        "team": team,
        "robot": robot,
        "page": keyset_page(rules_of(robot), ("-id",), **cursors(request)),
        "manages_robots": bool(may(reader(request), Verb.ROBOT_MANAGE, team=team)),
        "form": TrustRuleForm(),
        "identity_form": IdentityForm(),
        "snippets": snippets(
            url=settings.PUBLIC_URL,
            host=settings.REGISTRY_PUBLIC_URL.partition("://")[2],
            robot=robot.user.username,
            audience=settings.PUBLIC_URL,
        ),
        **more,
    }
    return render(request, "lifecycle/authority/keyless.html", context, status=status)


def _managed(request: HttpRequest, slug: str, pk: int) -> tuple[Team, Robot]:
    team = team_for(reader(request), slug)
    robot = robot_in(team, pk)
    require(reader(request), Verb.ROBOT_MANAGE, team=team)
    return team, robot


@require_http_methods(["GET", "HEAD", "POST"])
def rules(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Show the rules of a robot to the users who can see its team, and create one."""
    if request.method != "POST":
        team = team_for(reader(request), slug)
        return _page(request, team, robot_in(team, pk))
    team, robot = _managed(request, slug, pk)
    form = TrustRuleForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            rule = services.create_rule(robot.pk, actor=reader(request), **form.cleaned_data)
            messages.success(request, f"Rule {rule.name} created. Try it with a token of a job.")
            return redirect("lifecycle:robot-keyless", slug, pk)
    return _page(request, team, robot, form=form, status=422)


@require_POST
def try_rule(request: HttpRequest, slug: str, pk: int, rule: int) -> HttpResponse:
    """Say whether a rule accepts an identity token. Asks the issuer for its keys."""
    team, robot = _managed(request, slug, pk)
    found = rule_of(robot, rule)
    form = IdentityForm(request.POST, auto_id=f"%s-{found.pk}")
    if not form.is_valid():
        return _page(request, team, robot, identity_form=form, tried=found, status=422)
    trial = services.try_rule(found, form.cleaned_data["token"])
    return _page(request, team, robot, identity_form=form, tried=found, trial=trial)


@require_POST
def end(request: HttpRequest, slug: str, pk: int, rule: int) -> HttpResponse:
    """End a rule."""
    _managed(request, slug, pk)
    services.end_rule(pk, rule, actor=reader(request))
    messages.success(request, "Rule ended. Tokens that jobs got by it are revoked.")
    return redirect("lifecycle:robot-keyless", slug, pk)
