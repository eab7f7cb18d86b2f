"""Permission checks: whether a user has a verb on an object. Pages, the API and workers all use these functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from accounts import tokens
from accounts.models import Robot, Team, User
from accounts.verbs import Verb
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import live_grants
from lifecycle.authority.models import HeldGrant, RoleGrant
from lifecycle.core.context import once_a_read
from lifecycle.core.errors import NotPermitted
from lifecycle.core.patterns import matches
from lifecycle.core.reasons import Denial
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a check. When it is not allowed, `reason` is a sentence for the page."""

    is_allowed: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.is_allowed


ALLOWED = Decision(True)


def grants_of(
    actor: User, verb: Verb, *, team_id: int, family: str | None, environment: Environment | None = None
) -> Iterable[HeldGrant]:
    """Return the live grants of `actor` that include `verb` on `family`; for a robot, [] unless its maker has it too.

    `family` is the family name of a repository, or None for the whole team.

    A grant for one environment applies only to actions in that environment. A grant for some repositories never applies
    to the whole team.
    """
    grants = _own_grants(actor, verb, team_id, family, environment)
    if grants and not all(
        _holds(maker, verb, team_id=team_id, family=family, environment=environment) for maker in makers_of(actor)
    ):
        return []
    return grants


def is_above_grants(actor: User) -> bool:
    """Return whether `actor` is an active admin or the system user. Both can set up teams and grant any role."""
    return actor.is_active and (actor.is_superuser or actor.kind == User.Kind.SYSTEM)


def makers_of(actor: User) -> list[User]:
    """Return the users whose rights bound those of a robot now, whoever granted them; [] for other accounts.

    A robot without an active responsible user is suspended: its own account then bounds it, which has nothing.
    """
    if actor.kind != User.Kind.ROBOT:
        return []
    return once_a_read(("makers", actor.pk), lambda: tokens.makers_of(actor))


def why_suspended(actor: User) -> str:
    """Return why a robot is suspended, as one sentence; "" for a robot that is not, and for any other account."""
    if actor.kind != User.Kind.ROBOT:
        return ""
    return once_a_read(("suspended", actor.pk), lambda: tokens.why_suspended(_with_maker(actor)))


def not_effective(robot: Robot, grants: Iterable[RoleGrant | HeldGrant]) -> list[str]:
    """Return the verbs that the robot's `grants` include and its makers do not have there now, sorted."""
    rows = list(grants)
    return sorted({verb for maker in makers_of(robot.user) for verb in lacking_for(maker, rows)})


def lacking_for(user: User, grants: Iterable[RoleGrant | HeldGrant]) -> list[str]:
    """Return the verbs of `grants`, which are of one team, that `user` does not have wherever they apply, sorted."""
    rows = list(grants)
    if not rows or user.kind == User.Kind.SYSTEM:
        return []
    own = list(live_grants(user).filter(team_id=rows[0].team_id).select_related("role"))
    always = ADMIN_VERBS if user.is_active and user.is_superuser else frozenset()
    return sorted(
        {
            verb
            for grant in rows
            for verb in grant.role.verbs
            if verb not in always and not any(verb in mine.role.verbs and _covers(mine, grant) for mine in own)
        }
    )


def end_of_rights(actor: User, verbs: Iterable[str], *, team_id: int) -> datetime | None:
    """Return when the first of `verbs` ends that `actor` has over a whole team now; None when none has an end.

    A robot's also end with those of its makers.
    """
    if is_above_grants(actor):
        return None
    ends = []
    for user in (actor, *makers_of(actor)):
        for verb in verbs:
            if user.kind == User.Kind.SYSTEM or (user.is_superuser and verb in ADMIN_VERBS):
                continue
            own = [grant.expires_at for grant in _own_grants(user, Verb(verb), team_id, None, None)]
            ends += [max(end for end in own if end is not None)] if own and None not in own else []
    return min(ends, default=None)


def _covers(wide: HeldGrant, narrow: RoleGrant | HeldGrant) -> bool:
    """Return whether `wide` applies wherever `narrow` does. A star also matches the star of a narrower pattern."""
    return wide.environment_id in {None, narrow.environment_id} and matches(
        wide.repository_pattern, narrow.repository_pattern
    )


def _with_maker(robot: User) -> User:
    return User.objects.select_related("robot__responsible").get(pk=robot.pk)


def _holds(user: User, verb: Verb, *, team_id: int, family: str | None, environment: Environment | None = None) -> bool:
    if user.kind == User.Kind.SYSTEM or (user.is_active and user.is_superuser and verb in ADMIN_VERBS):
        return user.is_active
    return any(_own_grants(user, verb, team_id, family, environment))


def _own_grants(
    actor: User, verb: Verb, team_id: int, family: str | None, environment: Environment | None
) -> list[HeldGrant]:
    # Read once for all environments and repositories of the team that a page asks about.
    rows = once_a_read(
        ("grants", actor.pk, verb, team_id), lambda: list(live_grants(actor, verb).filter(team_id=team_id))
    )
    place = {None, environment.pk if environment is not None else None}
    return [grant for grant in rows if grant.environment_id in place and matches(grant.repository_pattern, family)]


def may(
    actor: User,
    verb: Verb,
    *,
    team: Team | None = None,
    repository: Repository | None = None,
    environment: Environment | None = None,
) -> Decision:
    """Return whether `actor` has `verb` on the given object now, according to the grants in the database.

    The system user is allowed everything, because it runs Gravingdock's own jobs. An inactive user is allowed nothing.
    A robot is allowed what its own grants and the rights of its responsible user both allow; nothing while suspended.
    An admin (`is_superuser`) has ADMIN_VERBS everywhere, to set up teams and roles, and needs grants for other verbs.
    """
    if stopped := "This account is deactivated." if not actor.is_active else why_suspended(actor):
        return Decision(False, stopped)
    if actor.kind == User.Kind.SYSTEM or (actor.is_superuser and verb in ADMIN_VERBS):
        return ALLOWED
    owner = team or (repository.team if repository else None) or (environment.team if environment else None)
    if owner is None:
        raise ValueError("may() needs a team, a repository or an environment")
    family = repository.family if repository else None
    if any(grants_of(actor, verb, team_id=owner.pk, family=family, environment=environment)):
        return ALLOWED
    lacking = [maker for maker in makers_of(actor)
               if not _holds(maker, verb, team_id=owner.pk, family=family, environment=environment)]  # fmt: skip
    if lacking and any(_own_grants(actor, verb, owner.pk, family, environment)):
        return Decision(
            False,
            f"{lacking[0]} is responsible for {actor} and does not have {verb.value} here."
            " A robot never has more permissions than that user.",
        )
    where = f"{environment.slug} of team {owner.slug}" if environment else f"team {owner.slug}"
    text = f"You need {verb.value} in {where}. Ask an owner of the team to grant it."
    place = environment.slug if environment else ""
    return Decision(False, Denial(text, verb=verb.value, team=owner.slug, repository=family or "", environment=place))


def require(
    actor: User,
    verb: Verb,
    *,
    team: Team | None = None,
    repository: Repository | None = None,
    environment: Environment | None = None,
) -> None:
    """Raise NotPermitted with the reason when `may` does not allow the action."""
    decision = may(actor, verb, team=team, repository=repository, environment=environment)
    if not decision:
        raise NotPermitted(decision.reason, verb=verb.value)
