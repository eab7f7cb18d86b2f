"""Reads of the pages of teams, roles, robots and people, each with its joins chosen and its number of queries fixed."""

from __future__ import annotations

from accounts.models import Robot, Team, User
from accounts.verbs import Verb
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import count_of
from lifecycle.authority.rights import may


def rights_over(actor: User, team: Team) -> dict[str, bool]:
    """Return which forms of a team's page `actor` may use; the services check again."""
    return {
        "manages_team": bool(may(actor, Verb.TEAM_MANAGE, team=team)),
        "manages_robots": bool(may(actor, Verb.ROBOT_MANAGE, team=team)),
        "manages_environments": bool(may(actor, Verb.ENVIRONMENT_MANAGE, team=team)),
    }


def counts_of(team: Team) -> dict[str, int]:
    """Return the numbers beside the tabs of a team's page, in one query."""
    grants = count_of(RoleGrant.objects.exclude(user__kind=User.Kind.ROBOT), "team")
    robots = count_of(Robot.objects.all(), "team")
    found = Team.objects.filter(pk=team.pk).annotate(grants=grants, machines=robots)
    grant_count, robot_count = found.values_list("grants", "machines").get()
    return {"grant_count": grant_count, "robot_count": robot_count}
