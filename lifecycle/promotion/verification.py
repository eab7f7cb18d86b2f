"""Whether a promoted image works: a person says so, or a service answers with a signed reply."""

from __future__ import annotations

from typing import Final

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.authority.rights import may
from lifecycle.core import sealing, signed_replies
from lifecycle.core.errors import IllegalTransition, LifecycleError, Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.signed_replies import Reply
from lifecycle.environments.models import Environment
from lifecycle.promotion.access import lock_promotion
from lifecycle.promotion.models import MOVES_ON, PromotionRequest
from lifecycle.promotion.rollback import request_rollback
from lifecycle.promotion.services import finish_verification

State = PromotionRequest.State
AGAIN_AFTER_S: Final = 15.0


def why_not_confirm(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot say whether the promotion works: promotion.execute, where people verify."""
    if request.state != State.VERIFYING or request.verify_by is None:
        return Reason(f"{request} does not wait for a verification.", IllegalTransition)
    if request.environment.verification != Environment.Verification.MANUAL:
        return Reason("A service verifies promotions to this environment.", IllegalTransition)
    decision = may(actor, Verb.PROMOTION_EXECUTE, repository=request.repository, environment=request.environment)
    return None if decision else Reason(decision.reason)


@transaction.atomic
def confirm(promotion_id: int, *, actor: User, is_good: bool, comment: str) -> PromotionRequest:
    """Say whether a promoted image works. It then has succeeded or failed.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    request = lock_promotion(actor, promotion_id)
    refuse_if(why_not_confirm(actor, request), state=request.state)
    if not comment.strip():
        raise Malformed("Enter what you checked: it is shown on the request.")
    _end(request, is_good=is_good, why=f"{actor}: {comment.strip()}", actor=actor)
    return request


@transaction.atomic
def record_reply(promotion_id: int, reply: Reply) -> None:
    """Record the answer of a service. A request that waits no longer keeps its result."""
    request = _lock(PromotionRequest.objects.filter(pk=promotion_id))
    if request is not None and reply.is_good is not None:
        _end(request, is_good=reply.is_good, why=reply.words, actor=system_user())


def fail_overdue() -> int:
    """Fail the promotions whose time to be verified is over, by the database's clock. Returns how many."""
    overdue = PromotionRequest.objects.filter(state=State.VERIFYING, verify_by__lt=Now())
    number = 0
    for pk in list(overdue.order_by("pk").values_list("pk", flat=True)[:100]):
        with transaction.atomic():
            request = _lock(overdue.filter(pk=pk))
            if request is not None:
                _end(request, is_good=False, why="Nobody verified it in time.", actor=system_user())
                number += 1
    return number


def _lock(rows: QuerySet[PromotionRequest]) -> PromotionRequest | None:
    """Return the row if it waits for a verification, locked."""
    waiting = rows.filter(state=State.VERIFYING, verify_by__isnull=False)
    joined = waiting.select_related("image", "repository__team", "repository__registry", "environment__team")
    return joined.select_for_update(of=("self",)).first()


def _end(request: PromotionRequest, *, is_good: bool, why: str, actor: User) -> None:
    finish_verification(request, is_good=is_good, why=why, actor=actor)
    if is_good or request.kind not in MOVES_ON or not request.environment.rolls_back:
        return
    try:
        with transaction.atomic():
            request_rollback(
                request.repository, request.environment, actor=system_user(), reason=f"{request} failed: {why}"[:2000]
            )
    except LifecycleError as error:  # nothing to go back to, or nobody could approve it
        PromotionRequest.objects.filter(pk=request.pk).update(
            failure=f"{request.failure} No rollback was requested: {error.message}"[:2000]
        )


def ask(request: PromotionRequest, *, attempt: int) -> Reply:
    """Ask the service of the environment. Only a reply with its signature counts; all else is "not yet"."""
    environment = request.environment
    try:
        secret = sealing.unseal(bytes(environment.verify_secret_sealed), environment, "verify_secret_sealed")
    except sealing.Unreadable:
        return Reply(None, "The shared secret cannot be read. Set it again in the environment.")
    question = {
        "promotion": request.pk, "repository": request.repository.name, "environment": environment.slug,
        "team": environment.team.slug, "digest": request.image.digest, "tag": request.tag,
    }  # fmt: skip
    return signed_replies.ask(environment.verify_url, secret, number=f"{request.pk}-{attempt}", question=question)
