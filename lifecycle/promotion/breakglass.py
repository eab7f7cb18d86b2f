"""Break-glass: one person promotes past unmet requirements, and another person reviews it afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import BreakGlassUsed, ReviewSettled
from lifecycle.authority.confirming import confirm_password
from lifecycle.authority.identity import why_not_counted, why_token_not_counted
from lifecycle.authority.resets import why_reset
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound, PolicyBlocked
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import Environment
from lifecycle.policy.types import Status
from lifecycle.promotion.access import lock_promotion, promotable_image
from lifecycle.promotion.exclusions import requesters_of
from lifecycle.promotion.models import PromotionRequest, ReviewDebt
from lifecycle.promotion.queries import MOVING_STATES
from lifecycle.promotion.refusals import why_not_from, why_not_tag
from lifecycle.promotion.services import create_request, lock_slot, replace_live, start, tag_of
from lifecycle.promotion.signed_votes import why_no_step_up
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.quarantine.services import hold_off
from lifecycle.registry.models import Repository

REVIEW_WITHIN: Final = timedelta(hours=24)
INCIDENT_MAX: Final = 200


def why_not_break_glass(actor: User, repository: Repository, environment: Environment) -> Reason | None:
    """Return why `actor` cannot promote past unmet requirements there."""
    if not actor.is_person:
        return Reason("Only people can break glass: it asks for a password.")
    if (reset := why_reset(actor)) is not None:
        return reset
    decision = may(actor, Verb.PROMOTION_BREAKGLASS, repository=repository, environment=environment)
    return why_not_from(repository, environment) if decision else Reason(decision.reason)


def break_glass(
    repository: Repository,
    digest: str,
    environment: Environment,
    *,
    actor: User,
    reason: str,
    incident: str,
    password: str,
    tag: str = "",
) -> PromotionRequest:
    """Promote an image now, past what is not met. What was bypassed is stored, and another person must review it.

    A quarantine and missing platforms cannot be bypassed. Production asks for the second factor where its approvals
    do. A running promotion of the environment ends. Raises NotFound, NotPermitted, ConfirmationRequired,
    StepUpRequired, TooManyAttempts, Malformed, Conflict, PolicyBlocked.
    """
    refuse_if(why_not_break_glass(actor, repository, environment))
    refuse_if(why_no_step_up(actor, environment, "Breaking glass into production"))
    if not reason.strip() or not incident.strip() or len(incident) > INCIDENT_MAX:
        raise Malformed("Enter a reason, and the number or address of the incident (at most 200 characters).")
    confirm_password(actor, password)
    with transaction.atomic():
        return _break_glass(repository, digest, environment, actor, reason, incident.strip(), tag)


def _break_glass(  # noqa: PLR0917 -- the arguments of break_glass, in its order
    repository: Repository, digest: str, environment: Environment, actor: User, reason: str, incident: str, tag: str
) -> PromotionRequest:
    image = promotable_image(repository, digest)
    tag = tag or tag_of(repository, image)
    refuse_if(why_not_tag(tag))
    hold_off()  # so that the image cannot be quarantined between the check and the commit
    refuse_if(why_quarantined(image))
    slot = lock_slot(repository, environment)
    if slot.image_id == image.pk:
        raise Conflict(f"This image is already deployed in {environment.slug}.")
    same = PromotionRequest.objects.filter(
        image=image, repository=repository, environment=environment, state__in=PromotionRequest.NEXT
    ).first()
    old = None
    if same is not None:
        old = replace_live(same, "break-glass") if same.state not in MOVING_STATES else None
        if old is None:
            raise Conflict(f"{same} is about to bring this image. Try again when it has finished.")
    kind = PromotionRequest.Kind.BREAK_GLASS
    request = create_request(slot, image, tag=tag, kind=kind, actor=actor, reason=reason)
    if old is not None:
        PromotionRequest.objects.filter(pk=old.pk).update(superseded_by=request)
    evaluation = request.evaluations.latest("pk")
    if request.state != PromotionRequest.State.READY:
        unmet = [item["summary"] for item in evaluation.requirements if item["status"] == Status.UNSATISFIED]
        raise PolicyBlocked("Break-glass cannot bypass this.", reasons=unmet)
    titles = [item["title"] for item in evaluation.requirements if item["status"] == Status.BYPASSED]
    debt = ReviewDebt.objects.create(
        request=request, incident=incident, bypassed=titles, due_at=clock.now() + REVIEW_WITHIN
    )
    details = BreakGlassUsed(incident=incident, bypassed=tuple(titles), due_at=debt.due_at.isoformat())
    _record(Action.PROMOTION_BREAK_GLASS, request, actor, reason=reason, details=details)
    return start(request, actor=actor)


def why_not_settle(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot review this use of break-glass. Nobody reviews their own, whatever is switched off."""
    debt = ReviewDebt.objects.filter(request=request.pk).first()
    if debt is None:
        return Reason(f"{request} did not break glass.", NotFound)
    if debt.settled_at is not None:
        return Reason(f"{request} was already reviewed by {debt.settled_by}.", Conflict)
    if not actor.is_person:
        return Reason("Only people can review break-glass.")
    own = requesters_of(request) | ({request.executed_by_id} if request.executed_by_id is not None else set())
    if actor.pk in own:
        return Reason("You broke the glass yourself. Another user must review it.")
    if uncounted := why_not_counted(actor, own) or why_token_not_counted():
        return Reason(f"Your review would not count: {uncounted}")
    decision = may(actor, Verb.PROMOTION_APPROVE, repository=request.repository, environment=request.environment)
    return None if decision else Reason(decision.reason)


@transaction.atomic
def settle(promotion_id: int, *, actor: User, outcome: str, comment: str) -> PromotionRequest:
    """Review a use of break-glass: it was justified, or not. Raises NotFound, NotPermitted, Malformed, Conflict."""
    request = lock_promotion(actor, promotion_id)
    refuse_if(why_not_settle(actor, request))
    if outcome not in ReviewDebt.Outcome.values or not comment.strip():
        raise Malformed("Choose justified or unjustified, and enter what you found.")
    ReviewDebt.objects.filter(request=request).update(
        settled_at=Now(), settled_by=actor, outcome=outcome, comment=comment.strip()
    )
    details = ReviewSettled(outcome=outcome)
    _record(Action.PROMOTION_REVIEWED, request, actor, reason=comment, details=details)
    return PromotionRequest.objects.select_related("debt__settled_by").get(pk=request.pk)


def remind_of_reviews() -> int:
    """Record once for each open review that it is overdue. Returns how many."""
    due = ReviewDebt.objects.filter(settled_at=None, reminded_at=None, due_at__lt=Now())
    number = 0
    for pk in list(due.values_list("pk", flat=True)[:100]):
        with transaction.atomic():
            debt = due.select_for_update(skip_locked=True).filter(pk=pk).first()
            if debt is None:
                continue
            debt.reminded_at = clock.now()
            debt.save(update_fields=["reminded_at"])
            _record(Action.PROMOTION_REVIEW_OVERDUE, debt.request, system_user())
            number += 1
    return number


def _record(
    action: Action,
    request: PromotionRequest,
    actor: User,
    *,
    reason: str = "",
    details: BreakGlassUsed | ReviewSettled | None = None,
) -> None:
    audit.record(
        action, actor=actor, subject=request, repository=request.repository, environment=request.environment,
        image=request.image, reason=reason, details=details,
    )  # fmt: skip
