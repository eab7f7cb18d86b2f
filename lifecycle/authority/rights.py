"""Permission checks: whether a user has a verb on an object. Pages, the API and workers all use these functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import live_grants
from lifecycle.authority.models import RoleGrant
from lifecycle.core.context import once_a_read
from lifecycle.core.errors import NotPermitted
from lifecycle.core.patterns import matches
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
) -> Iterable[RoleGrant]:
    """Return the live grants of `actor` that include `verb` on `family`.

    `family` is the family name of a repository, or None for the whole team.

    A grant for one environment applies only to actions in that environment. A grant for some repositories never applies
    to the whole team.
    """
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
    An admin (`is_superuser`) has ADMIN_VERBS everywhere, to set up teams and roles, and needs grants for other verbs.
    """
    if not actor.is_active:
        return Decision(False, "This account is deactivated.")
    if actor.kind == User.Kind.SYSTEM:
        return ALLOWED
    if actor.is_superuser and verb in ADMIN_VERBS:
        return ALLOWED
    owner = team or (repository.team if repository else None) or (environment.team if environment else None)
    if owner is None:
        raise ValueError("may() needs a team, a repository or an environment")
    family = repository.family if repository else None
    if any(grants_of(actor, verb, team_id=owner.pk, family=family, environment=environment)):
        return ALLOWED
    where = f"{environment.slug} of team {owner.slug}" if environment else f"team {owner.slug}"
    return Decision(False, f"You need {verb.value} in {where}. Ask an owner of the team to grant it.")


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
