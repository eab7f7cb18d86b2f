"""What would change for whom if a role had other verbs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from accounts.models import Role, User
from accounts.verbs import Verb
from lifecycle.authority.access import role_called
from lifecycle.authority.grants import live_grants
from lifecycle.authority.rights import is_above_grants
from lifecycle.core.errors import Malformed, NotPermitted
from lifecycle.core.patterns import matches

SHOWN_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """What one account would gain and lose in one place. What it has by another grant there is in neither."""

    user: str
    team: str
    repositories: str
    environment: str  # "" for all
    gains: tuple[str, ...]
    loses: tuple[str, ...]


def what_if_role(slug: str, verbs: Collection[str], *, actor: User) -> list[Difference]:
    """Return what would change for each account with a live grant of the role, by name; at most SHOWN_MAX.

    Only admins change roles, so only they ask. Robots have at most what their responsible user has: with less, they
    gain less. Raises NotFound, NotPermitted, Malformed.
    """
    role = role_called(slug)
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can create and change roles. Ask an admin.")
    wanted = set(verbs)
    if unknown := sorted(wanted - {verb.value for verb in Verb}):
        raise Malformed(f"Unknown verbs: {', '.join(unknown)[:200]}.")
    more, less = wanted - set(role.verbs), set(role.verbs) - wanted
    grants = list(
        live_grants().filter(role=role).select_related("user", "team", "environment").order_by("user__username", "pk")
    )
    others = _others(role, {grant.user_id for grant in grants})
    found = []
    for grant in grants:
        kept = {
            verb
            for other in others[grant.user_id, grant.team_id]
            if other.environment_id in {None, grant.environment_id}
            and matches(other.repository_pattern, grant.repository_pattern)
            for verb in other.role.verbs
        }
        gains, loses = sorted(more - kept), sorted(less - kept)
        if gains or loses:
            place = grant.environment.slug if grant.environment is not None else ""
            found.append(
                Difference(
                    grant.user.username, grant.team.slug, grant.repository_pattern, place, tuple(gains), tuple(loses)
                )
            )
    return found[:SHOWN_MAX]


def _others(role: Role, users: Collection[int]) -> dict[tuple[int, int], list[Any]]:
    """Return the live grants of other roles of these users, by (user, team)."""
    found: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for grant in live_grants().filter(user__in=users).exclude(role=role).select_related("role"):
        found[grant.user_id, grant.team_id].append(grant)
    return found
