"""People: by role, or with a token."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.models import Robot, Role, Team, User
from accounts.queries import system_user
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


def robot(team: Team, role: str = "", *, name: str = "ci", maker: User | None = None) -> Robot:
    """Return a new robot of a team; `maker` is responsible for it, by default the system user, who bounds nothing."""
    user = User.objects.create(username=f"{team.slug}+{name}", kind=User.Kind.ROBOT)
    by = maker or system_user()
    row = Robot.objects.create(user=user, team=team, name=name, created_by=by, responsible=by)
    if role:
        RoleGrant.objects.create(user=user, team=team, role=Role.objects.get(slug=role))
    return row
