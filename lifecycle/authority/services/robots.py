"""Robots: machine accounts of one team. They hold grants and tokens, and never more than who made them holds."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from django.db import IntegrityError, transaction

from accounts import tokens
from accounts.models import ApiToken, Membership, Robot, Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, UserDetails
from lifecycle.authority.grants import live_grants
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import project
from lifecycle.authority.rights import require
from lifecycle.authority.services.teams import give, lock_team, refuse_beyond
from lifecycle.authority.services.tokens import end_token, write_token
from lifecycle.core.errors import Conflict, Malformed, NotFound

# `shop+ci`: the plus keeps the names of robots apart from those of people, which have none.
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NAME_MAX: Final = 60  # characters


@transaction.atomic
def create_robot(team_id: int, *, actor: User, name: str) -> Robot:
    """Make a robot of a team; its account is called `<team>+<name>` and may do nothing yet.

    Raises NotFound, NotPermitted, Malformed, or Conflict for a taken name.
    """
    team = _lock(actor, team_id)
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise Malformed("A robot's name has up to 60 lower-case letters, digits and single hyphens between them.")
    try:
        with transaction.atomic():
            user = User(username=f"{team.slug}+{name}", kind=User.Kind.ROBOT)
            user.set_unusable_password()
            user.save(force_insert=True)
            robot = Robot.objects.create(user=user, team=team, name=name, created_by=actor)
    except IntegrityError:
        raise Conflict(f"Team {team} has, or had, a robot {name}; choose another name.") from None
    Membership.objects.create(team=team, user=user)
    details = UserDetails(user=user.username)
    audit.record(Action.ROBOT_CREATED, actor=actor, subject=robot, team=team, details=details)
    return robot


@transaction.atomic
def grant_robot(
    robot_id: int,
    *,
    actor: User,
    role: str,
    repository_pattern: str = "*",
    environment: str = "",
    expires_at: datetime | None = None,
) -> RoleGrant:
    """Give a robot a role in its team. Raises NotFound, NotPermitted (also beyond one's own rights), Malformed."""
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent="No such robot.")
    _refuse_retired(robot)
    return give(
        team,
        robot.user,
        actor=actor,
        role=role,
        repository_pattern=repository_pattern,
        environment=environment,
        expires_at=expires_at,
    )


@transaction.atomic
def create_robot_token(
    robot_id: int, *, actor: User, name: str, days: float = tokens.DEFAULT_DAYS
) -> tuple[ApiToken, str]:
    """Make a token of a robot and return (row, text); the text is shown once.

    Raises NotFound, NotPermitted, or Malformed. Who does not hold what the robot holds gets no token of it: reading
    the text would be a way to those rights.
    """
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent="No such robot.")
    _refuse_retired(robot)
    held = live_grants(robot.user).select_related("role")
    refuse_beyond(actor, team, sorted({verb for grant in held for verb in grant.role.verbs}))
    return write_token(robot.user, actor=actor, name=name, days=days, team=team)


@transaction.atomic
def revoke_robot_token(robot_id: int, token_id: int, *, actor: User) -> None:
    """End one token of a robot now. Raises NotFound, NotPermitted."""
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent="No such robot.")
    row = ApiToken.objects.select_for_update().filter(pk=token_id, user=robot.user, revoked_at=None).first()
    if row is None:
        raise NotFound("No such token.")
    end_token(row, actor=actor, team=team)


@transaction.atomic
def retire_robot(robot_id: int, *, actor: User) -> None:
    """End a robot: its tokens and grants go, its name stays taken, so that the trail names one machine by it.

    Raises NotFound, NotPermitted, or Conflict when it has ended already.
    """
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent="No such robot.")
    _refuse_retired(robot)
    for row in ApiToken.objects.select_for_update().filter(user=robot.user, revoked_at=None).order_by("pk"):
        end_token(row, actor=actor, team=team)
    RoleGrant.objects.filter(user=robot.user).delete()
    User.objects.filter(pk=robot.user_id).update(is_active=False)
    project(robot.user)
    details = UserDetails(user=robot.user.username)
    audit.record(Action.ROBOT_RETIRED, actor=actor, subject=robot, team=team, details=details)


def _robot(robot_id: int) -> Robot:
    robot = Robot.objects.select_related("user").filter(pk=robot_id).first()
    if robot is None:
        raise NotFound("No such robot.")
    return robot


def _lock(actor: User, team_id: int, *, absent: str = "No such team.") -> Team:
    """Return the team, locked, if `actor` may manage its robots; raises NotFound with `absent`, or NotPermitted."""
    try:
        team = lock_team(actor, team_id)
    except NotFound:
        raise NotFound(absent) from None
    require(actor, Verb.ROBOT_MANAGE, team=team)
    return team


def _refuse_retired(robot: Robot) -> None:
    robot.user.refresh_from_db(fields=["is_active"])  # under the team's lock, which every act on robots takes
    if not robot.user.is_active:
        raise Conflict(f"{robot} has ended.")
