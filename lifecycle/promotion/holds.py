"""Holds and stops: put promotions on hold, stop the line, lift it, and ask what holds a promotion."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import HoldDetails
from lifecycle.authority.access import repository_named
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import Environment, Hold
from lifecycle.policy.types import HoldFacts
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.places import applies_to, judge_again, place_of, seen_by, why_not_at
from lifecycle.registry.models import Repository

STOP_FOR: Final = timedelta(hours=4)  # without another time
EXPIRES_WITHIN: Final = timedelta(days=366)


def active() -> QuerySet[Hold]:
    """Return the holds that apply now, by the database's clock, with their place and owner; oldest first."""
    rows = Hold.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), lifted_at=None)
    return rows.select_related("team", "environment", "repository", "owner").order_by("pk")


def holds_visible_to(actor: User) -> QuerySet[Hold]:
    """Return the active holds that `actor` can see."""
    return active().filter(seen_by(actor))


def holds_on(environment: Environment, repository: Repository | None = None) -> QuerySet[Hold]:
    """Return the active holds of an environment; without a repository, only those that hold all of it."""
    of = Q(repository=None) if repository is None else Q(repository=None) | Q(repository=repository)
    return active().filter(applies_to(environment) & of)


def facts_of_holds(request: PromotionRequest) -> list[HoldFacts]:
    """Return the holds that stop the request whoever runs it."""
    rows = holds_on(request.environment, request.repository).filter(scope=Hold.Scope.ALL)
    return [HoldFacts(row.owner.username, row.reason, _until(row), row.is_stop) for row in rows]


def words_of_hold(request: PromotionRequest) -> str:
    """Return what holds the request back from running without a user, as one sentence; "" when nothing does."""
    row = holds_on(request.environment, request.repository).first()
    return f"Held by {row.owner}: {row.reason}" if row is not None else ""


def _until(row: Hold) -> str:
    return f"{row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at is not None else ""


@transaction.atomic
def put_hold(
    *,
    actor: User,
    reason: str,
    team: str = "",
    environment: str = "",
    repository: str = "",
    scope: str = Hold.Scope.ALL,
    expires_at: datetime | None = None,
    is_stop: bool = False,
) -> Hold:
    """Put promotions on hold at a place. With `is_stop`, stop the line there: everything, and always with an end.

    Requests there are evaluated again at once. Raises NotFound, NotPermitted, Malformed.
    """
    team_row, environment_row = place_of(actor, team=team, environment=environment)
    refuse_if(why_not_at(actor, team_row, environment_row))
    if not reason.strip() or "\0" in reason:
        raise Malformed("Enter a reason: others need it to know when promotions can go on.")
    if scope not in Hold.Scope.values or (is_stop and (scope != Hold.Scope.ALL or repository)):
        raise Malformed("The scope is auto or all. A stop has scope all and no repository.")
    family = None
    if repository:
        family = repository_named(actor, repository)
        if environment_row is None or family.team_id != environment_row.team_id:
            raise Malformed("Name the environment of the repository's team in which it is on hold.")
    if is_stop and expires_at is None:
        expires_at = clock.now() + STOP_FOR
    if expires_at is not None and not clock.now() < expires_at <= clock.now() + EXPIRES_WITHIN:
        raise Malformed("A hold expires in the future, within 366 days.")
    row = Hold.objects.create(
        team=team_row, environment=environment_row, repository=family, scope=scope, is_stop=is_stop,
        reason=reason.strip()[:2000], owner=actor, expires_at=expires_at,
    )  # fmt: skip
    _record(Action.HOLD_CREATED, row, actor, row.reason, HoldDetails(**_values(row)))
    judge_again(row.team, row.environment)
    return row


def hold_after_rollback(request: PromotionRequest) -> Hold:
    """Put runs without a user on hold after a rollback, so that nothing brings the newer image back by itself."""
    environment = request.environment
    row = Hold.objects.create(
        team_id=environment.team_id, environment=environment, repository=request.repository, scope=Hold.Scope.AUTO,
        reason=f"{request} rolled back to {request.tag}. Lift it when newer images may run by themselves again.",
        owner=request.requested_by,
    )  # fmt: skip
    _record(Action.HOLD_CREATED, row, request.requested_by, row.reason, HoldDetails(**_values(row)))
    return row


def why_not_lift(actor: User, row: Hold) -> Reason | None:
    """Return why `actor` cannot lift a hold: its owner can, and who could set one there."""
    if row.lifted_at is not None or (row.expires_at is not None and row.expires_at <= clock.now()):
        return Reason("This hold has ended already.", Conflict)
    return None if row.owner_id == actor.pk else why_not_at(actor, row.team, row.environment)


@transaction.atomic
def lift_hold(hold_id: int, *, actor: User, reason: str = "") -> Hold:
    """End a hold or a stop now. Raises NotFound, NotPermitted, Conflict when it has ended."""
    rows = Hold.objects.filter(seen_by(actor), pk=hold_id).select_related("team", "environment", "repository", "owner")
    row = rows.select_for_update(of=("self",)).first()
    if row is None:
        raise NotFound("Hold not found, or you don't have access.")
    refuse_if(why_not_lift(actor, row))
    row.lifted_at, row.lifted_by = clock.now(), actor
    row.save(update_fields=["lifted_at", "lifted_by"])
    _record(Action.HOLD_LIFTED, row, actor, reason.strip()[:2000], HoldDetails(**_values(row)))
    judge_again(row.team, row.environment)
    return row


def _values(row: Hold) -> dict[str, str]:
    expires_at = row.expires_at.isoformat() if row.expires_at is not None else "never"
    return {"place": row.place_words, "scope": "stop" if row.is_stop else row.scope, "expires_at": expires_at}


def _record(action: Action, row: Hold, actor: User, reason: str, details: HoldDetails) -> None:
    audit.record(
        action, actor=actor, subject=row, team=row.team, environment=row.environment, repository=row.repository,
        reason=reason, details=details,
    )  # fmt: skip
