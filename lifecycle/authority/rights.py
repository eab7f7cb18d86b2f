"""The one answer to "may this user do that there?"; every face and every worker asks here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import in_place, live_grants
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import NotPermitted
from lifecycle.core.patterns import matches
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed; `reason` is a sentence for the page when it is not."""

    is_allowed: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.is_allowed


ALLOWED = Decision(True)


def grants_of(
    actor: User, verb: Verb, *, team_id: int, family: str | None, environment: Environment | None = None
) -> Iterable[RoleGrant]:
    """Return the live grants of `actor` that carry `verb` over `family` (a repository's family name; None: the team).

    A grant for one environment counts only for acts in that environment. A grant for some repositories never counts
    for the team as a whole.
    """
    rows = live_grants(actor, verb).filter(in_place(environment), team_id=team_id)
    return [grant for grant in rows if matches(grant.repository_pattern, family)]


def may(
    actor: User,
    verb: Verb,
    *,
    team: Team | None = None,
    repository: Repository | None = None,
    environment: Environment | None = None,
) -> Decision:
    """Return whether `actor` holds `verb` over the object named, now, by the grants in the database.

    Gravingdock itself may do what its own jobs do; an inactive user may do nothing. Being an admin (`is_superuser`)
    gives ADMIN_VERBS everywhere, so that teams and roles can be set up, and nothing else.
    """
    if not actor.is_active:
        return Decision(False, "This account is not active.")
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
    where = f"in {environment.slug} of team {owner.slug}" if environment else f"in team {owner.slug}"
    return Decision(False, f"You do not hold {verb.value} {where}; an owner of the team can grant it.")


def require(
    actor: User,
    verb: Verb,
    *,
    team: Team | None = None,
    repository: Repository | None = None,
    environment: Environment | None = None,
) -> None:
    """Raise NotPermitted, with the reason, unless `may`."""
    decision = may(actor, verb, team=team, repository=repository, environment=environment)
    if not decision:
        raise NotPermitted(decision.reason, verb=verb.value)
