"""Queries of the team pages. Each function uses a fixed number of queries."""

from __future__ import annotations

from accounts.models import Robot, Team, User
from accounts.verbs import Verb
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import count_of
from lifecycle.authority.rights import may


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
