"""Reads of the pages of teams, roles, robots and people, each with its joins chosen and its number of queries fixed."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from accounts.models import ApiToken, Robot, Role, Team, User
from accounts.verbs import Verb
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import teams_visible_to
from lifecycle.authority.rights import may
from lifecycle.core.errors import NotFound
from lifecycle.promotion.models import Environment


def _number(rows: QuerySet[Any], of: str, what: str = "pk") -> Coalesce:
    """Return how many distinct `what` of `rows` belong to each outer row, as a subquery of its own."""
    counted = rows.filter(**{of: OuterRef("pk")}).order_by().values(of).annotate(n=Count(what, distinct=True))
    return Coalesce(Subquery(counted.values("n"), output_field=IntegerField()), 0)


def teams_with_counts(actor: User) -> QuerySet[Team]:
    """Return the teams `actor` can see with `people`, `robot_count` and `place_count`; page by (slug, id)."""
    grants = RoleGrant.objects.filter(RoleGrant.live(), user__kind=User.Kind.PERSON, user__is_active=True)
    return teams_visible_to(actor).annotate(
        people=_number(grants, "team", "user"),
        robot_count=_number(Robot.objects.filter(user__is_active=True), "team"),
        place_count=_number(Environment.objects.all(), "team"),
    )


def team_for(actor: User, slug: str) -> Team:
    """Return the team if `actor` may see it; raises NotFound for absent and hidden alike."""
    team = teams_visible_to(actor).filter(slug=slug).first()
    if team is None:
        raise NotFound("There is no such team, or you may not see it.")
    return team


def grants_in(team: Team) -> QuerySet[RoleGrant]:
    """Return every grant of a team with who holds it and who gave it; page by (user__username, id)."""
    return RoleGrant.objects.filter(team=team).select_related("user", "role", "environment", "granted_by")


def grant_in(team: Team, grant_id: int) -> RoleGrant:
    """Return one grant of a team; raises NotFound."""
    grant = grants_in(team).filter(pk=grant_id).first()
    if grant is None:
        raise NotFound("There is no such grant.")
    return grant


def robots_in(team: Team) -> QuerySet[Robot]:
    """Return the robots of a team with `token_count` live tokens; page by (name, id)."""
    return (
        Robot.objects.filter(team=team)
        .select_related("user", "created_by")
        .annotate(token_count=_number(live_tokens(), "user__robot"))
    )


def robot_in(team: Team, robot_id: int) -> Robot:
    """Return one robot of a team; raises NotFound."""
    robot = Robot.objects.filter(team=team, pk=robot_id).select_related("user", "created_by").first()
    if robot is None:
        raise NotFound("There is no such robot.")
    return robot


def live_tokens() -> QuerySet[ApiToken]:
    """Return the tokens that people and robots made and have not revoked; the expired ones are shown as such."""
    return ApiToken.objects.filter(revoked_at=None).exclude(kind=ApiToken.Kind.REFRESH)


def roles_with_counts() -> QuerySet[Role]:
    """Return every role with `holders`: how many users hold it somewhere."""
    return Role.objects.annotate(holders=_number(RoleGrant.objects.filter(RoleGrant.live()), "role", "user"))


def role_called(slug: str) -> Role:
    """Return a role with its `holders`; raises NotFound."""
    role = roles_with_counts().filter(slug=slug).first()
    if role is None:
        raise NotFound("There is no such role.")
    return role


def rights_over(actor: User, team: Team) -> dict[str, bool]:
    """Return which forms of a team's page `actor` may use; the services check again."""
    return {
        "manages_team": bool(may(actor, Verb.TEAM_MANAGE, team=team)),
        "manages_robots": bool(may(actor, Verb.ROBOT_MANAGE, team=team)),
        "manages_environments": bool(may(actor, Verb.ENVIRONMENT_MANAGE, team=team)),
    }


def counts_of(team: Team) -> dict[str, int]:
    """Return the numbers beside the tabs of a team's page, in one query."""
    grants = _number(RoleGrant.objects.exclude(user__kind=User.Kind.ROBOT), "team")
    robots = _number(Robot.objects.all(), "team")
    found = Team.objects.filter(pk=team.pk).annotate(grants=grants, machines=robots)
    grant_count, robot_count = found.values_list("grants", "machines").get()
    return {"grant_count": grant_count, "robot_count": robot_count}
