"""Retention plans, and the teams and repositories of rules, by the names in a request."""

from __future__ import annotations

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.access import repository_for, team_for
from lifecycle.authority.rights import may
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason
from lifecycle.registry.models import Repository
from lifecycle.retention.models import RetentionPlan
from lifecycle.retention.queries import plans_visible_to


def plan_for(actor: User, plan_id: int, *, locked: bool = False) -> RetentionPlan:
    """Return a plan that `actor` can see, perhaps locked; raises NotFound."""
    rows = plans_visible_to(actor).filter(pk=plan_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("Retention plan not found, or you don't have access.")
    return row


def place_for(actor: User, *, team: str = "", repository: int | None = None) -> tuple[Team, Repository | None]:
    """Return the team, and the repository if one is given, that `actor` can see; raises NotFound."""
    if repository is None:
        return team_for(actor, team), None
    row = repository_for(actor, repository)
    if team and row.team.slug != team:
        raise NotFound("Repository not found, or you don't have access.")
    return row.team, row


def why_not_retain(actor: User, team: Team, repository: Repository | None) -> Reason | None:
    """Return why `actor` cannot set rules, plan, confirm or restore there; None when they can."""
    environment = repository.environment if repository is not None else None
    decision = may(actor, Verb.IMAGE_DELETE, team=team, repository=repository, environment=environment)
    return None if decision else Reason(decision.reason)
