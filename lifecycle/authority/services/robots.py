"""Robots: machine accounts of one team, with grants and tokens.

Only admins can grant a robot verbs that they do not have themselves. At each use, a robot has only the verbs that the
user who is responsible for it has too, whoever granted them. Without that user it is suspended.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction

from accounts import tokens
from accounts.models import ApiToken, Membership, Robot, Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.audit.details_of_access import RobotTakenOver, TokenReplaced
from lifecycle.authority.grants import live_grants
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import project
from lifecycle.authority.rights import lacking_for, may, require
from lifecycle.authority.services.teams import grant_role, lock_team, require_verbs
from lifecycle.authority.services.tokens import end_token, write_token
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if

# `shop+ci`: only robots have a plus sign in their names, so they cannot be confused with people.
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NAME_MAX: Final = 60  # characters
_DAYS_MAX: Final = 366  # of a token
OVERLAP_HOURS: Final = 24  # that a replaced token still works, by default
OVERLAP_HOURS_MAX: Final = 30 * 24
_NO_ROBOT: Final = "Robot not found, or you don't have access."
_NO_TEAM: Final = "Team not found, or you don't have access."


@transaction.atomic
def create_robot(team_id: int, *, actor: User, name: str) -> Robot:
    """Create a robot of a team. Its account is named `<team>+<name>` and has no grants yet.

    Raises NotFound, NotPermitted, Malformed, or Conflict for a name that the team uses or has used.
    """
    team = _lock(actor, team_id)
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise Malformed("Enter a name of up to 60 lower-case letters and digits, with single hyphens between them.")
    try:
        with transaction.atomic():
            user = User(username=f"{team.slug}+{name}", kind=User.Kind.ROBOT)
            user.set_unusable_password()
            user.save(force_insert=True)
            robot = Robot.objects.create(user=user, team=team, name=name, created_by=actor, responsible=actor)
    except IntegrityError:
        raise Conflict(f"Robot name {name} is already used in team {team}. Choose another name.") from None
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
    """Grant a robot a role in its team.

    Raises NotFound, NotPermitted (also for a role with verbs that `actor` does not have), Malformed, or Conflict.
    """
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent=_NO_ROBOT)
    _refuse_retired(robot)
    return grant_role(
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
    robot_id: int,
    *,
    actor: User,
    name: str,
    days: float | None = None,
    with_token: ApiToken | None = None,
    replaces: int | None = None,
    overlap_hours: int = OVERLAP_HOURS,
) -> tuple[ApiToken, str]:
    """Create a token of a robot and return (row, text). The text is shown once.

    A token created `with_token` expires no later than that token, also without `days`, and ends with it. The token that
    it `replaces` (id) works for `overlap_hours` more, so that no pipeline fails while its secret is changed.

    Raises NotFound, NotPermitted, Malformed, or Conflict for a deactivated robot. `actor` must be an
    admin or have all verbs of the robot for as long, because the text of the token gives access to them.
    """
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent=_NO_ROBOT)
    _refuse_retired(robot)
    grants = live_grants(robot.user).select_related("role")
    verbs = sorted({verb for grant in grants for verb in grant.role.verbs})
    ends = clock.now() + timedelta(days=min(tokens.DEFAULT_DAYS if days is None else days, _DAYS_MAX))
    if days is None and with_token is not None:
        ends = min(ends, with_token.expires_at)
    require_verbs(actor, team, verbs, until=ends, by=Verb.ROBOT_MANAGE)
    row, text = write_token(robot.user, actor=actor, name=name, days=days, team=team, with_token=with_token)
    if replaces is not None:
        _replace(_live_token(robot, replaces), row, actor=actor, team=team, overlap_hours=overlap_hours)
    return row, text


def _live_token(robot: Robot, token_id: int) -> ApiToken:
    rows = ApiToken.objects.select_for_update(of=("self",)).select_related("user")
    row = rows.filter(pk=token_id, user=robot.user, revoked_at=None, expires_at__gt=clock.now()).first()
    if row is None:
        raise NotFound("Token not found, or you don't have access.")
    return row


def _replace(old: ApiToken, new: ApiToken, *, actor: User, team: Team, overlap_hours: int) -> None:
    """Let the old token end soon, or now. It never lasts longer than before."""
    if not 0 <= overlap_hours <= OVERLAP_HOURS_MAX:
        raise Malformed(f"Choose an overlap of 0 to {OVERLAP_HOURS_MAX} hours.")
    if new.parent_id == old.pk:
        raise Conflict("A token that you create with a token ends with it. Sign in in the browser to replace it.")
    ends = min(old.expires_at, clock.now() + timedelta(hours=overlap_hours))
    details = TokenReplaced(
        user=old.user.username, lookup=old.lookup, replaced_by=new.lookup, before=old.expires_at.isoformat(),
        after=ends.isoformat(),
    )  # fmt: skip
    audit.record(Action.TOKEN_REPLACED, actor=actor, subject=old, team=team, details=details)
    if overlap_hours:
        ApiToken.objects.filter(pk=old.pk).update(expires_at=ends)
    else:
        end_token(old, actor=actor, team=team)


def why_not_taken_over(actor: User, robot: Robot) -> Reason | None:
    """Return why `actor` cannot become responsible for the robot; None if `actor` can."""
    if not robot.user.is_active:
        return Reason(f"Robot {robot} is deactivated. Create a new robot.", Conflict)
    if not actor.is_person:
        return Reason("Only people can take over a robot.")
    decision = may(actor, Verb.ROBOT_MANAGE, team=robot.team)
    if not decision:
        return Reason(decision.reason)
    if robot.responsible_id == actor.pk:
        return Reason(f"You are already responsible for robot {robot}.", Conflict)
    beyond = lacking_for(actor, live_grants(robot.user).select_related("role"))
    if beyond:
        return Reason(
            f"You can only take over a robot whose permissions you have. You do not have: {', '.join(beyond)}."
        )
    return None


@transaction.atomic
def take_over_robot(robot_id: int, *, actor: User) -> Robot:
    """Make `actor` responsible for a robot: from now on, the rights of `actor` bound those of the robot.

    A suspended robot works again, with the tokens that active users created. Tokens that a deactivated user created are
    revoked, because that user knows their text. Raises NotFound, NotPermitted, or Conflict.
    """
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent=_NO_ROBOT)
    robot = Robot.objects.select_related("user", "team", "responsible", "created_by").get(pk=robot.pk)
    refuse_if(why_not_taken_over(actor, robot))
    before = robot.responsible.username if robot.responsible is not None else ""
    known_elsewhere = ApiToken.objects.select_for_update(of=("self",)).filter(
        user=robot.user, revoked_at=None, made_by__is_active=False
    )
    revoked = list(known_elsewhere.select_related("user").order_by("pk"))
    for row in revoked:
        end_token(row, actor=actor, team=team)
    robot.responsible = actor
    robot.save(update_fields=["responsible"])
    project(robot.user)
    details = RobotTakenOver(user=robot.user.username, before=before, after=actor.username, revoked=len(revoked))
    audit.record(Action.ROBOT_TAKEN_OVER, actor=actor, subject=robot, team=team, details=details)
    return robot


@transaction.atomic
def revoke_robot_token(robot_id: int, token_id: int, *, actor: User) -> None:
    """Revoke one token of a robot. Raises NotFound, NotPermitted."""
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent=_NO_ROBOT)
    row = ApiToken.objects.select_for_update().filter(pk=token_id, user=robot.user, revoked_at=None).first()
    if row is None:
        raise NotFound("Token not found, or you don't have access.")
    end_token(row, actor=actor, team=team)


@transaction.atomic
def retire_robot(robot_id: int, *, actor: User) -> None:
    """Deactivate a robot: revoke its tokens and delete its grants.

    Its name cannot be used again, so that the audit log uses each name for one robot only.
    Raises NotFound, NotPermitted, or Conflict when the robot is already deactivated.
    """
    robot = _robot(robot_id)
    team = _lock(actor, robot.team_id, absent=_NO_ROBOT)
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
        raise NotFound(_NO_ROBOT)
    return robot


def _lock(actor: User, team_id: int, *, absent: str = _NO_TEAM) -> Team:
    """Return the locked team if `actor` can manage its robots; raises NotFound(absent), or NotPermitted."""
    try:
        team = lock_team(actor, team_id)
    except NotFound:
        raise NotFound(absent) from None
    require(actor, Verb.ROBOT_MANAGE, team=team)
    return team


def _refuse_retired(robot: Robot) -> None:
    robot.user.refresh_from_db(fields=["is_active"])  # under the lock of the team, which every action on robots takes
    if not robot.user.is_active:
        raise Conflict(f"Robot {robot} is deactivated. Create a new robot.")
