"""Comments on a request: threads, answers, and threads that stop the request until they are resolved."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import CommentMade, ThreadResolved
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.promotion.access import lock_promotion
from lifecycle.promotion.exclusions import excluded_from
from lifecycle.promotion.models import Comment, PromotionRequest
from lifecycle.promotion.queries import LIVE_STATES
from lifecycle.promotion.services import reevaluate

TEXT_MAX: Final = 4000
COMMENTS_MAX: Final = 200  # of one request


def _is_approver(actor: User, request: PromotionRequest) -> bool:
    return bool(may(actor, Verb.PROMOTION_APPROVE, repository=request.repository, environment=request.environment))


def why_not_block(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot open a thread that stops the request: its requester and approvers can."""
    if not actor.is_person:
        return Reason("Only people can open a thread that stops a request.")
    if request.state not in LIVE_STATES:
        return Reason(f"{request} is {request.state}. Nothing stops it any more.", Conflict)
    if actor.pk == request.requested_by_id or _is_approver(actor, request):
        return None
    return Reason("Only the requester and users with promotion.approve can stop a request with a thread.")


def why_not_resolve(actor: User, request: PromotionRequest, thread: Comment) -> Reason | None:
    """Return why `actor` cannot resolve a thread: its author can, and approvers who are not excluded."""
    if thread.resolved_at is not None:
        return Reason(f"This thread was already resolved by {thread.resolved_by}.", Conflict)
    if actor.pk == thread.author_id or (_is_approver(actor, request) and actor.pk not in excluded_from(request)):
        return None
    return Reason(f"Only {thread.author} and approvers of this request can resolve this thread.")


@transaction.atomic
def comment(
    promotion_id: int, *, actor: User, text: str, reply_to: int | None = None, is_blocking: bool = False
) -> Comment:
    """Say something about a request that `actor` can see, or answer in a thread (`reply_to`).

    With `is_blocking`, the request waits until the thread is resolved. Raises NotFound, NotPermitted, Malformed,
    Conflict.
    """
    request = lock_promotion(actor, promotion_id)
    if not text.strip() or len(text) > TEXT_MAX or "\0" in text:
        raise Malformed(f"Write a comment of 1 to {TEXT_MAX:,} characters.")
    if request.comments.count() >= COMMENTS_MAX:
        raise Malformed(f"{request} has {COMMENTS_MAX} comments already. Go on elsewhere, and link to it.")
    thread = None
    if reply_to is not None:
        thread = request.comments.filter(pk=reply_to, thread=None).first()
        if thread is None:
            raise NotFound(f"{request} has no thread {reply_to}.")
        if is_blocking:
            raise Malformed("Only a new thread can stop the request, not an answer.")
    if is_blocking:
        refuse_if(why_not_block(actor, request))
    row = Comment.objects.create(
        request=request, thread=thread, author=actor, text=text.strip(), is_blocking=is_blocking
    )
    details = CommentMade(thread=(thread or row).pk, is_blocking=is_blocking)
    _record(Action.PROMOTION_COMMENTED, request, actor, details=details)
    if is_blocking:
        reevaluate(request)
    return row


@transaction.atomic
def resolve(promotion_id: int, thread_id: int, *, actor: User) -> Comment:
    """Resolve a thread. Raises NotFound, NotPermitted, Conflict when it is resolved already."""
    request = lock_promotion(actor, promotion_id)
    rows = request.comments.filter(pk=thread_id, thread=None).select_related("author", "resolved_by")
    thread = rows.first()
    if thread is None:
        raise NotFound(f"{request} has no thread {thread_id}.")
    refuse_if(why_not_resolve(actor, request, thread))
    thread.resolved_at, thread.resolved_by = clock.now(), actor
    thread.save(update_fields=["resolved_at", "resolved_by"])
    details = ThreadResolved(thread=thread.pk)
    _record(Action.PROMOTION_THREAD_RESOLVED, request, actor, details=details)
    if thread.is_blocking and request.state in LIVE_STATES:
        reevaluate(request)
    return thread


def _record(action: Action, request: PromotionRequest, actor: User, *, details: CommentMade | ThreadResolved) -> None:
    audit.record(
        action, actor=actor, subject=request, repository=request.repository, environment=request.environment,
        image=request.image, details=details,
    )  # fmt: skip
