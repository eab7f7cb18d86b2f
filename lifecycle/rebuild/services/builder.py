"""Turn the embedded builder on and off, for one repository or for all repositories of a team."""

from __future__ import annotations

from django.db import transaction

from accounts.models import Team, User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.authority.access import repository_for, team_for
from lifecycle.authority.rights import is_above_grants
from lifecycle.core.errors import Conflict, Malformed, NotPermitted
from lifecycle.rebuild.models import BuilderPermit
from lifecycle.registry.models import Repository


@transaction.atomic
def turn_builder_on(*, actor: User, team: str = "", repository_id: int | None = None) -> BuilderPermit:
    """Let the embedded builder run the recipes of one repository, or of all repositories of the team with this slug.

    A second call returns the same permit. Raises NotFound, NotPermitted unless `actor` is an admin, or Malformed for a
    repository that only promotions write to.
    """
    scope = _lock_scope(actor, team, repository_id)
    permit = BuilderPermit.objects.filter(**scope).first()
    if permit is None:
        permit = BuilderPermit.objects.create(turned_on_by=actor, **scope)
        _record(Action.BUILDER_TURNED_ON, permit, actor)
    return permit


@transaction.atomic
def turn_builder_off(*, actor: User, team: str = "", repository_id: int | None = None) -> None:
    """Turn the embedded builder off. A running build ends within seconds. Does nothing when it is off already.

    Raises NotFound, NotPermitted unless `actor` is an admin, or Conflict for a repository whose whole team has it.
    """
    scope = _lock_scope(actor, team, repository_id)
    repository = scope.get("repository")
    if isinstance(repository, Repository) and BuilderPermit.objects.filter(team=repository.team_id).exists():
        raise Conflict(f"The builder is on for the whole team {repository.team}. Turn it off on the page of the team.")
    permit = BuilderPermit.objects.filter(**scope).first()
    if permit is not None:
        _record(Action.BUILDER_TURNED_OFF, permit, actor)
        permit.delete()


def _record(action: Action, permit: BuilderPermit, actor: User) -> None:
    audit.record(action, actor=actor, subject=permit, team=permit.team, repository=permit.repository)


def _lock_scope(actor: User, team: str, repository_id: int | None) -> dict[str, Team | Repository]:
    """Return {"team" or "repository": its locked row}; raises NotFound, NotPermitted, Malformed."""
    if repository_id is None:
        found: Team | Repository = team_for(actor, team)
    else:
        found = repository_for(actor, repository_id)
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can turn the embedded builder on or off. Ask an admin.")
    if isinstance(found, Repository) and found.source_id is not None:
        raise Malformed("Only promotions write to this repository. Choose its source repository.")
    type(found)._default_manager.select_for_update().get(pk=found.pk)
    return {"team" if isinstance(found, Team) else "repository": found}
