"""People: by role, or with a token."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.models import Role, Team, User
from lifecycle.authority.models import RoleGrant


@dataclass(frozen=True, slots=True)
class Person:
    user: User
    token: str


def person(name: str, team: Team | None = None, role: str | None = None) -> User:
    """Return a new user; with a team, also grant the built-in role over all of it."""
    user = User.objects.create(username=name)
    if team is not None:
        RoleGrant.objects.create(user=user, team=team, role=Role.objects.get(slug=role))
    return user
