"""What the scheduler does to requests: remind, supersede, and run them. Each pass is safe to run twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import structlog
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import PromotionReminded, PromotionSuperseded
from lifecycle.core.errors import LifecycleError
from lifecycle.environments.models import Environment
from lifecycle.promotion import release_sets, services
from lifecycle.promotion.automatic import WINNING_STATES, newer_than, waits_for_set, why_not_automatic
from lifecycle.promotion.evaluating import move
from lifecycle.promotion.models import MOVES_ON, PromotionRequest
from lifecycle.promotion.queries import LIVE_STATES

log = structlog.get_logger(__name__)

State = PromotionRequest.State
REMIND_WITHIN: Final = timedelta(hours=24)  # before a deadline, or a quarter of the time for it, if that is less
SUPERSEDE_NOTICE: Final = timedelta(minutes=10)  # a request of a person is superseded only after this notice
AT_ONCE: Final = 100  # rows of one pass; the rest waits for the next


def remind_due() -> int:
    """Record once for each deadline that it is near, by the database's clock. Returns the number of reminders."""
    soon = Now() + REMIND_WITHIN
    rows = PromotionRequest.objects.filter(
        Q(state=State.OPEN, approve_by__gt=Now(), approve_by__lt=soon)
        | Q(state=State.READY, execute_by__gt=Now(), execute_by__lt=soon),
        release_set=None,
    ).annotate(moment=Now())
    reminded = 0
    for row in rows.order_by("pk"):
        is_open = row.state == State.OPEN
        deadline, start = (row.approve_by, row.created_at) if is_open else (row.execute_by, row.decided_at)
        what = "approval" if is_open else "run"
        if deadline is None or start is None or row.reminded_of == what:
            continue
        if deadline - row.moment <= (deadline - start) / 4:
            reminded += _remind(row.pk, row.state, what)
    return reminded


@transaction.atomic
def _remind(pk: int, state: str, what: str) -> int:
    """Record one reminder, unless somebody changed the request meanwhile."""
    request = _lock(pk, PromotionRequest.objects.filter(state=state).exclude(reminded_of=what))
    if request is None:
        return 0
    deadline = request.approve_by if state == State.OPEN else request.execute_by
    request.reminded_of = what
    request.save(update_fields=["reminded_of"])
    details = PromotionReminded(deadline=what, due_at=deadline.isoformat() if deadline else "")
    _record(Action.PROMOTION_REMINDED, request, details=details)
    return 1


def supersede_older() -> int:
    """Supersede requests of environments where the latest wins, when a newer one is ready or went further.

    A request of a person gets a notice first, and is superseded SUPERSEDE_NOTICE later. The notice ends when the newer
    request is not ready any more. Returns the number of changed requests.
    """
    newer = PromotionRequest.objects.filter(
        repository=OuterRef("repository"), environment=OuterRef("environment"), pk__gt=OuterRef("pk"),
        state__in=WINNING_STATES, kind__in=MOVES_ON,
    ).exclude(waits_for_set())  # fmt: skip
    is_replaced = Q(environment__queue_policy=Environment.QueuePolicy.LATEST_WINS, kind__in=MOVES_ON) & Exists(newer)
    alone = PromotionRequest.objects.filter(release_set=None, state__in=LIVE_STATES)  # a set is never replaced in parts
    rows = alone.filter(Q(supersede_at__isnull=False) | is_replaced)
    return sum(_supersede(pk) for pk in rows.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])


@transaction.atomic
def _supersede(pk: int) -> bool:
    """Give notice to one request, supersede it, or take the notice back; returns whether it changed."""
    request = _lock(pk, PromotionRequest.objects.filter(state__in=LIVE_STATES).annotate(moment=Now()))
    if request is None:
        return False
    newer = newer_than(request)
    if newer is None:
        if request.supersede_at is None:
            return False
        request.superseded_by, request.supersede_at = None, None
        request.save(update_fields=["superseded_by", "supersede_at"])
        return True
    details = PromotionSuperseded(newer=str(newer))
    if request.requested_by.is_person and request.supersede_at is None:
        moment = request.moment  # type: ignore[attr-defined]  # annotated
        request.superseded_by, request.supersede_at = newer, moment + SUPERSEDE_NOTICE
        request.save(update_fields=["superseded_by", "supersede_at"])
        _record(Action.PROMOTION_SUPERSEDING, request, details=details)
        return True
    if request.supersede_at is not None and request.supersede_at > request.moment:  # type: ignore[attr-defined]  # annotated
        return False
    move(request, State.SUPERSEDED, superseded_by=newer, supersede_at=None)
    _record(Action.PROMOTION_SUPERSEDED, request, details=details)
    return True


def run_automatically() -> int:
    """Run the ready requests and sets whose environment says so, and that nothing holds back; returns how many."""
    rows = PromotionRequest.objects.filter(
        state=State.READY, environment__auto_execute=True, failure="", release_set=None
    )
    started = release_sets.run_sets(lambda row, why: log.info("release_set_not_run", release_set_id=row.pk, reason=why))
    for request in rows.select_related("environment").order_by(F("decided_at").asc(), "pk")[:AT_ONCE]:
        if why_not_automatic(request):
            continue
        try:
            services.execute(request.pk, actor=system_user())
            started += 1
        except LifecycleError as error:  # somebody was faster, or it is no longer ready: the next pass decides
            log.info("promotion_not_run", promotion_id=request.pk, reason=error.message)
    return started


def _lock(pk: int, rows: QuerySet[PromotionRequest]) -> PromotionRequest | None:
    """Return the row, locked; None when it is not among `rows` now, or when somebody else has it locked."""
    joined = rows.select_related("image", "repository__team", "environment__team", "requested_by")
    return joined.select_for_update(of=("self",), skip_locked=True).filter(pk=pk).first()


def _record(action: Action, request: PromotionRequest, *, details: PromotionReminded | PromotionSuperseded) -> None:
    audit.record(
        action, actor=system_user(), subject=request, repository=request.repository, environment=request.environment,
        image=request.image, details=details,
    )  # fmt: skip
