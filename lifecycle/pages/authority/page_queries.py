"""Queries of the team pages. Each function uses a fixed number of queries."""

from __future__ import annotations

from typing import Any

from accounts.models import Robot, Team, User
from accounts.verbs import Verb
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import count_of, repositories_visible_to
from lifecycle.authority.rights import is_above_grants, may
from lifecycle.rebuild.models import BuilderPermit
from lifecycle.rebuild.refusals import who_turns_builder_on


def rights_over(actor: User, team: Team) -> dict[str, bool]:
    """Return which forms of a team page `actor` can use. The services check the permissions again."""
    return {
        "manages_team": bool(may(actor, Verb.TEAM_MANAGE, team=team)),
        "manages_robots": bool(may(actor, Verb.ROBOT_MANAGE, team=team)),
        "manages_environments": bool(may(actor, Verb.ENVIRONMENT_MANAGE, team=team)),
    }


def counts_of(team: Team) -> dict[str, int]:
    """Return the numbers on the tabs of a team page, in one query."""
    grants = count_of(RoleGrant.objects.exclude(user__kind=User.Kind.ROBOT), "team")
    robots = count_of(Robot.objects.all(), "team")
    rows = Team.objects.filter(pk=team.pk).annotate(grants=grants, machines=robots)
    grant_count, robot_count = rows.values_list("grants", "machines").get()
    return {"grant_count": grant_count, "robot_count": robot_count}


def builder_of(actor: User, team: Team) -> dict[str, Any]:
    """Return the team's permit for the embedded builder, and the permits of its repositories that `actor` can see."""
    permits = BuilderPermit.objects.select_related("turned_on_by", "repository__team")
    own = permits.filter(repository__in=repositories_visible_to(actor).filter(team=team)).order_by("repository__name")
    return {
        "permit": permits.filter(team=team).first(),
        "repository_permits": own,
        "is_admin": is_above_grants(actor),
        "who_turns_on": who_turns_builder_on(),
    }
