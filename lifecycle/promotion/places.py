"""Where windows and holds apply: the whole site, a team, or an environment; and who may set them there."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.queries import environments_visible_to, teams_visible_to
from lifecycle.authority.rights import is_above_grants, may
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.core.reasons import Reason
from lifecycle.environments.models import Environment
from lifecycle.promotion.due import judge_soon
from lifecycle.promotion.models import PromotionRequest


def applies_to(environment: Environment) -> Q:
    """Return the condition that a window or a hold applies to an environment."""
    is_there = Q(team=environment.team_id) & (Q(environment=None) | Q(environment=environment.pk))
    return Q(team=None) | is_there


def seen_by(actor: User) -> Q:
    """Return the condition that `actor` can see a window or a hold: those of the site, and of visible teams."""
    return Q(team=None) | Q(team__in=teams_visible_to(actor))


def place_of(actor: User, *, team: str = "", environment: str = "") -> tuple[Team | None, Environment | None]:
    """Return the team and the environment with these short names; ("", "") is the whole site. Raises NotFound."""
    if not team:
        return None, None
    if not environment:
        found = teams_visible_to(actor).filter(slug=team).first()
        if found is None:
            raise NotFound("Team not found, or you don't have access.")
        return found, None
    row = environments_visible_to(actor).filter(team__slug=team, slug=environment).first()
    if row is None:
        raise NotFound("Environment not found, or you don't have access.")
    return row.team, row


def why_not_at(actor: User, team: Team | None, environment: Environment | None) -> Reason | None:
    """Return why `actor` cannot set windows and holds there: admins for the site, environment.manage elsewhere."""
    if team is None:
        return None if is_above_grants(actor) else Reason("Only admins can do this for the whole site. Ask an admin.")
    subject: dict[str, Any] = {"team": team} | ({"environment": environment} if environment is not None else {})
    decision = may(actor, Verb.ENVIRONMENT_MANAGE, **subject)
    return None if decision else Reason(decision.reason, NotPermitted)


def judge_again(team: Team | None, environment: Environment | None) -> None:
    """Make the open and ready requests at a place due for the next evaluation round."""
    live = PromotionRequest.objects.filter(state__in=("open", "ready"))
    if team is not None:
        live = live.filter(environment__team=team)
    if environment is not None:
        live = live.filter(environment=environment)
    judge_soon(live)
