"""What an access file would say of the present: the export, and its version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from accounts.models import Robot, Role, Team, User
from accounts.verbs import Verb
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import teams_visible_to, teams_where
from lifecycle.authority.rights import is_above_grants
from lifecycle.core.errors import NotFound
from lifecycle.declared.document import VERSION
from lifecycle.environments.models import Environment


def export(actor: User, team_slugs: Collection[str] = ()) -> dict[str, Any]:
    """Return the access file of the teams that `actor` manages (team.manage), or of those named; by name.

    An admin gets the custom roles too, without named teams. Raises NotFound for a team that `actor` cannot see.
    """
    visible = teams_visible_to(actor)
    if team_slugs:
        teams = list(visible.filter(slug__in=team_slugs).order_by("slug"))
        missing = sorted(set(team_slugs) - {team.slug for team in teams})
        if missing:
            raise NotFound(f"Team {missing[0][:60]} not found, or you don't have access.")
    else:
        teams = list(visible.filter(pk__in=teams_where(actor, Verb.TEAM_MANAGE).values("pk")).order_by("slug"))
    found: dict[str, Any] = {"version": VERSION}
    if is_above_grants(actor) and not team_slugs:
        found["roles"] = roles()
    found["teams"] = [team_state(team) for team in teams]
    return found


def roles() -> list[dict[str, Any]]:
    """Return the custom roles."""
    rows = Role.objects.filter(is_builtin=False).order_by("slug")
    return [{"name": row.slug, "title": row.name, "verbs": sorted(row.verbs)} for row in rows]


def team_state(team: Team) -> dict[str, Any]:
    """Return a team as an access file has it. Four queries."""
    return {
        "name": team.slug,
        "title": team.name,
        "environments": [environment_state(row) for row in Environment.objects.filter(team=team).order_by("position")],
        "robots": [{"name": name} for name in live_robots(team).values_list("name", flat=True)],
        "grants": [grant_state(grant) for grant in grants_of_team(team)],
    }


def environment_state(row: Environment) -> dict[str, Any]:
    """Return an environment as an access file has it."""
    found: dict[str, Any] = {"name": row.slug, "title": row.name, "prefix": row.prefix, "production": row.is_production}
    return found | ({"archived": True} if row.is_archived else {})


def live_robots(team: Team) -> Any:
    """Return the robots of a team that are not deactivated, by name."""
    return Robot.objects.filter(team=team, user__is_active=True).order_by("name")


def grants_of_team(team: Team) -> list[RoleGrant]:
    """Return the grants of a team that an access file names, by holder, role and scope; expired ones are left out."""
    rows = RoleGrant.objects.filter(team=team, user__kind__in=(User.Kind.PERSON, User.Kind.ROBOT))
    found = rows.select_related("user__robot", "role", "environment")
    now = datetime.now(UTC)
    live = [grant for grant in found if grant.expires_at is None or grant.expires_at > now]
    return sorted(live, key=lambda grant: json.dumps(grant_state(grant), sort_keys=True))


def grant_state(grant: RoleGrant) -> dict[str, Any]:
    """Return a grant as an access file has it."""
    user = grant.user
    if user is None:
        raise ValueError("A grant of a group is not in an access file.")
    holder = {"robot": user.robot.name} if user.kind == User.Kind.ROBOT else {"user": user.username}
    found: dict[str, Any] = {**holder, "role": grant.role.slug}
    if grant.repository_pattern != "*":
        found["repositories"] = grant.repository_pattern
    if grant.environment is not None:
        found["environment"] = grant.environment.slug
    if grant.expires_at is not None:
        found["until"] = as_text(grant.expires_at)
    return found


def as_text(moment: datetime) -> str:
    """Return a time as access files have it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def etag_of(document: dict[str, Any]) -> str:
    """Return the version of what a document is compared with: the present state of its roles and teams."""
    slugs = [team["name"] for team in document.get("teams", ())]
    present: list[Any] = [roles() if "roles" in document else None]
    present += [team_state(team) for team in Team.objects.filter(slug__in=slugs).order_by("slug")]
    text = json.dumps(present, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
