"""Environments of a team's promotion path."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Q

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, EnvironmentCreated
from lifecycle.authority.rights import require
from lifecycle.core.errors import Conflict
from lifecycle.environments.models import Environment


@transaction.atomic
def create_environment(
    team: Team, *, actor: User, slug: str, name: str, prefix: str, required_approvals: int = 1
) -> Environment:
    """Add an environment at the end of the team's promotion path.

    Raises NotPermitted, or Conflict when the slug or the prefix is already used in the team. Also raises Conflict when
    the prefix is the slug of a team, because that team's members could push to the target repositories.
    """
    require(actor, Verb.ENVIRONMENT_MANAGE, team=team)
    Team.objects.select_for_update().get(pk=team.pk)
    if Team.objects.filter(slug=prefix).exists():
        raise Conflict(f"A team is named {prefix}, and its members can push there. Choose another target prefix.")
    if Environment.objects.filter(team=team).filter(Q(slug=slug) | Q(prefix=prefix)).exists():
        raise Conflict(f"Short name {slug} or prefix {prefix} is already used in team {team}. Choose another.")
    last = Environment.objects.filter(team=team).order_by("-position").first()
    environment = Environment(
        team=team,
        slug=slug,
        name=name,
        prefix=prefix,
        required_approvals=required_approvals,
        position=last.position + 1 if last else 0,
    )
    environment.full_clean(validate_unique=False, validate_constraints=False)
    environment.save()
    audit.record(
        Action.ENVIRONMENT_CREATED, actor=actor, subject=environment, environment=environment,
        details=EnvironmentCreated(prefix=prefix, required_approvals=required_approvals),
    )  # fmt: skip
    return environment
