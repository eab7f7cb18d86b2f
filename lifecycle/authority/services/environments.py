"""Environments of a team's promotion path."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import EnvironmentCreated
from lifecycle.authority.access import registry_for_target
from lifecycle.authority.rights import require
from lifecycle.core.errors import Conflict
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import EXECUTE_WITHIN_IN_PRODUCTION_S, EXECUTE_WITHIN_S, Environment
from lifecycle.registry.constants import ANCHOR_PREFIX, VAULT_PREFIX
from lifecycle.registry.services import MANAGED_NAME

# Short names that decide the defaults of a new environment, and nothing after it is made.
_PRODUCTION_NAMES: Final = frozenset({"production", "prod"})
_DEV_NAMES: Final = frozenset({"dev", "development"})


def why_not_prefix(team: Team, prefix: str, *, of: Environment | None = None) -> Reason | None:
    """Return why no environment of the team, other than `of`, can copy promoted images below `prefix`."""
    if prefix == VAULT_PREFIX:
        text = f"{prefix} is reserved: withdrawn images are in repositories below it. Choose another prefix."
        return Reason(text, Conflict)
    if prefix == ANCHOR_PREFIX:
        text = f"{prefix} is reserved: checkpoints of the audit log are below it. Choose another prefix."
        return Reason(text, Conflict)
    if Team.objects.filter(slug=prefix).exists():
        text = f"A team is named {prefix}, and its members can push there. Choose another target prefix."
        return Reason(text, Conflict)
    others = Environment.objects.filter(team=team, prefix=prefix)
    if (others.exclude(pk=of.pk) if of is not None else others).exists():
        return Reason(f"Prefix {prefix} is already used in team {team}. Choose another.", Conflict)
    return None


@transaction.atomic
def create_environment(
    team: Team,
    *,
    actor: User,
    slug: str,
    name: str,
    prefix: str,
    required_approvals: int | None = None,
    is_production: bool | None = None,
    registry: str = "",
) -> Environment:
    """Add an environment at the end of the team's promotion path.

    Without `is_production`, one that is called production or prod is production. Without `required_approvals`,
    production needs 2, one that is called dev or development 0, others 1. In dev, a newer request supersedes older
    ones.

    `registry` is the name of the registry to promote to ("" or "managed": the managed one), which only an admin can
    choose.

    Raises NotPermitted, Malformed for a registry that is not there, or Conflict when the slug or the prefix is already
    used in the team. Also raises Conflict when the prefix is the slug of a team, because that team's members could
    push to the target repositories.
    """
    require(actor, Verb.ENVIRONMENT_MANAGE, team=team)
    Team.objects.select_for_update().get(pk=team.pk)
    if Environment.objects.filter(team=team, slug=slug).exists():
        raise Conflict(f"Short name {slug} is already used in team {team}. Choose another.")
    refuse_if(why_not_prefix(team, prefix))
    last = Environment.objects.filter(team=team).order_by("-position").first()
    is_production = slug in _PRODUCTION_NAMES if is_production is None else is_production
    is_dev = slug in _DEV_NAMES and not is_production
    if required_approvals is None:
        required_approvals = 2 if is_production else 0 if is_dev else 1
    target = registry_for_target(actor, registry) if registry not in {"", MANAGED_NAME} else None
    environment = Environment(
        team=team,
        is_production=is_production,
        queue_policy=Environment.QueuePolicy.LATEST_WINS if is_dev else Environment.QueuePolicy.QUEUE,
        execute_within_s=EXECUTE_WITHIN_IN_PRODUCTION_S if is_production else EXECUTE_WITHIN_S,
        slug=slug,
        name=name,
        prefix=prefix,
        registry=target,
        required_approvals=required_approvals,
        position=last.position + 1 if last else 0,
    )
    environment.full_clean(validate_unique=False, validate_constraints=False)
    environment.save()
    audit.record(
        Action.ENVIRONMENT_CREATED, actor=actor, subject=environment, environment=environment,
        details=EnvironmentCreated(
            prefix=prefix, required_approvals=required_approvals, registry=target.name if target else MANAGED_NAME
        ),
    )  # fmt: skip
    return environment
