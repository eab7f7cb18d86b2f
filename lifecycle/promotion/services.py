"""Actions on promotions. Each function checks, locks, changes, audits and queues in one transaction."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.audit.details import TagDetails
from lifecycle.audit.details_of_promotion import (
    ObjectionOverruled,
    PromotionExecuting,
    PromotionRequested,
    PromotionSuperseded,
    VerificationAsked,
    VoteWithdrawn,
)
from lifecycle.authority.rights import require
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, PolicyBlocked
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment, Slot
from lifecycle.environments.queries import previous_environment
from lifecycle.jobs import services as jobs
from lifecycle.policy.types import Status
from lifecycle.promotion import release_states
from lifecycle.promotion.access import lock_alone, promotable_image, verb_to_run
from lifecycle.promotion.automatic import why_not_automatic
from lifecycle.promotion.evaluating import OVERDUE, evaluate, is_overdue, judge_locked, move, record
from lifecycle.promotion.gates import RUNNING
from lifecycle.promotion.holds import hold_after_rollback
from lifecycle.promotion.kinds import CHECK, PROMOTE
from lifecycle.promotion.models import MOVES_ON, Evaluation, PromotionRequest, ReleaseSet, Vote
from lifecycle.promotion.queries import (
    LIVE_STATES,
    MOVING_STATES,
    due_for_judgement,
    target_reference,
)
from lifecycle.promotion.refusals import (
    why_not_cast,
    why_not_overrule,
    why_not_request,
    why_not_request_image,
    why_not_run,
    why_not_tag,
    why_not_withdraw,
    why_not_withdraw_vote,
)
from lifecycle.promotion.signed_votes import (
    Signature,
    Signed,
    adds_proof,
    approval_details,
    is_strong,
    verified,
    why_no_step_up,
    why_not_unsigned,
)
from lifecycle.promotion.soaking import occupy
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.quarantine.services import hold_off
from lifecycle.rebuild.graph import line_images_of
from lifecycle.rebuild.models import RebuildJob
from lifecycle.registry.models import Image, Repository

State = PromotionRequest.State

EXECUTIONS_MAX: Final = 3  # after this many technical failures, the promotion must be requested again
COPY_ATTEMPTS_MAX: Final = 8  # per run: with jobs.RETRY_AFTER_S, the registry can be down for 15 minutes
JUDGED_AT_ONCE: Final = 100  # requests per round; the rest waits for the next round
JUDGED_FOR_S: Final = 2.0  # per round: the same ticker also sends lost wake-ups


@transaction.atomic
def request_promotion(
    repository: Repository, digest: str, environment: Environment, *, actor: User, reason: str, tag: str = ""
) -> PromotionRequest:
    """Request the promotion of one digest to an environment. An unfinished request for the same is returned instead.

    What can never be copied is refused here. Raises NotFound when the digest is not in that repository, NotPermitted,
    Malformed, Conflict when the environment already holds it, or PolicyBlocked when too few users could approve it.
    """
    refuse_if(why_not_request(actor, repository, environment))
    if not reason.strip():
        raise Malformed("Enter a reason: approvers need it to decide on the request.")
    image = promotable_image(repository, digest)
    tag = tag or tag_of(repository, image)
    refuse_if(why_not_tag(tag))
    # The slot's lock serialises requests: either we find the unfinished one, or ours is the first.
    slot = lock_slot(repository, environment)
    same = PromotionRequest.objects.filter(
        image=image, repository=repository, environment=environment, state__in=PromotionRequest.NEXT
    ).first()
    if same is not None:
        return same
    quarantine = why_quarantined(image)
    refuse_if(why_not_request_image(actor, repository, environment, image, slot=slot, quarantine=quarantine))
    return create_request(slot, image, tag=tag, kind=kind_of(slot, image), actor=actor, reason=reason)


def lock_slot(repository: Repository, environment: Environment) -> Slot:
    """Return the slot of a repository in an environment, locked until the transaction ends."""
    slot, _ = Slot.objects.get_or_create(repository=repository, environment=environment)
    rows = Slot.objects.select_related("repository__team", "repository__registry", "environment__team", "image")
    return rows.select_for_update(of=("self",)).get(pk=slot.pk)


def create_request(slot: Slot, image: Image, *, tag: str, kind: str, actor: User, reason: str) -> PromotionRequest:
    """Create a request for the slot, which the caller has locked, and evaluate it.

    Raises PolicyBlocked when too few users could approve it.
    """
    request = store_request(slot, image, tag=tag, kind=kind, actor=actor, reason=reason)
    judge_new(request)
    return request


def store_request(
    slot: Slot, image: Image, *, tag: str, kind: str, actor: User, reason: str, release_set: ReleaseSet | None = None
) -> PromotionRequest:
    """Store a request for the slot, which the caller has locked. `judge_new` evaluates it."""
    repository, environment = slot.repository, slot.environment
    request = PromotionRequest.objects.create(
        image=image,
        repository=repository,
        environment=environment,
        source_environment=previous_environment(environment) if kind in MOVES_ON else None,
        tag=tag,
        kind=kind,
        release_set=release_set,
        requested_by=actor,
        reason=reason.strip(),
        approve_by=clock.now() + timedelta(seconds=environment.approve_within_s),
    )
    details = PromotionRequested(tag=request.tag, kind=request.kind)
    record(Action.PROMOTION_REQUESTED, request, actor, reason=request.reason, details=details)
    return request


def judge_new(request: PromotionRequest) -> None:
    """Evaluate a new request for the first time. Raises PolicyBlocked when too few users could approve it."""
    for requirement in reevaluate(request).requirements:
        if requirement["name"] == "approvals" and requirement["status"] == Status.UNSATISFIED:
            raise PolicyBlocked("No user can approve this request.", reasons=[requirement["summary"]])
    request.refresh_from_db()


def replace_live(request: PromotionRequest, by: str) -> PromotionRequest | None:
    """Supersede the open or ready request for the same image, so that `by` can take its place; None when it is locked.

    Its release set is superseded as a whole. The caller has locked the slot, so it never waits here: whoever runs the
    other request waits for the slot.
    """
    rows = PromotionRequest.objects.select_for_update(of=("self",), skip_locked=True).filter(state__in=LIVE_STATES)
    wanted = Q(pk=request.pk) if request.release_set_id is None else Q(release_set=request.release_set_id)
    size = 1 if request.release_set is None else request.release_set.size
    joined = rows.select_related("image", "repository__team", "environment__team").filter(wanted).order_by("pk")
    locked = {row.pk: row for row in joined}
    if len(locked) != size:
        return None
    details = PromotionSuperseded(newer=by)
    for row in locked.values():
        move(row, State.SUPERSEDED)
        record(Action.PROMOTION_SUPERSEDED, row, system_user(), details=details)
    if request.release_set_id is not None:
        release_states.supersede(request.release_set_id, by)
    return locked[request.pk]


def kind_of(slot: Slot, image: Image) -> str:
    """Return the kind of request: a refresh when `image` is a rebuild of the image in the slot, else forward."""
    rebuilds = RebuildJob.objects.filter(repository=slot.repository_id, new_image=image, state=RebuildJob.State.DONE)
    for job in rebuilds:
        if slot.image_id in line_images_of({slot.repository_id: {job.tag}})[slot.repository_id] - {image.pk}:
            return PromotionRequest.Kind.REBUILD_REFRESH
    return PromotionRequest.Kind.FORWARD


def tag_of(repository: Repository, image: Image) -> str:
    """Return the most recently updated tag of the image in its repository, or a name made from its digest."""
    tag = repository.tags.filter(image=image).order_by("-updated_at").values_list("name", flat=True).first()
    return tag or "sha-" + Digest.parse(image.digest).encoded[:12]


@transaction.atomic
def reevaluate(request: PromotionRequest) -> Evaluation:
    """Evaluate an open or ready request again, and move it between the two states when the verdict changed."""
    rows = PromotionRequest.objects.select_related("image", "repository__team", "environment__team")
    return judge_locked(rows.select_for_update(of=("self",)).get(pk=request.pk))


@transaction.atomic
def approve(
    promotion_id: int,
    *,
    actor: User,
    reason: str = "",
    via: str = Vote.Via.WEB,
    signature: Signature | None = None,
) -> PromotionRequest:
    """Approve a request. It becomes ready when all other requirements are met.

    With `signature`, the approval is signed with the actor's passkey, which is also a fresh second factor. Raises
    NotFound, NotPermitted (also for the requester, even an admin: docs/adr/0004), StepUpRequired, IllegalTransition,
    or Conflict when the evidence changed since the signed statement was made.
    """
    request = lock_alone(actor, promotion_id, Verb.PROMOTION_APPROVE)
    signed = verified(actor, signature) if signature is not None else None
    cast(request, actor, Vote.Value.APPROVE, reason, via, signed=signed)
    record(Action.PROMOTION_APPROVED, request, actor, reason=reason, details=approval_details(signed))
    reevaluate(request)
    request.refresh_from_db()
    return request


@transaction.atomic
def reject(promotion_id: int, *, actor: User, reason: str, via: str = Vote.Via.WEB) -> PromotionRequest:
    """Reject a request permanently, with a reason. Raises NotFound, NotPermitted, IllegalTransition, Malformed."""
    request = lock_alone(actor, promotion_id, Verb.PROMOTION_APPROVE)
    if not reason.strip():
        raise Malformed("Enter a reason: the requester needs to know what to change.")
    cast(request, actor, Vote.Value.REJECT, reason, via)
    move(request, State.REJECTED, decided_at=clock.now())
    record(Action.PROMOTION_REJECTED, request, actor, reason=reason)
    return request


@transaction.atomic
def object_to(promotion_id: int, *, actor: User, reason: str, via: str = Vote.Via.WEB) -> PromotionRequest:
    """Object to a request, with a reason. It waits until the objection is withdrawn or overruled.

    It stays when the evidence changes. Raises NotFound, NotPermitted, IllegalTransition, Malformed, Conflict.
    """
    request = lock_alone(actor, promotion_id, Verb.PROMOTION_APPROVE)
    if not reason.strip():
        raise Malformed("Enter a reason: the requester needs to know what to change.")
    cast(request, actor, Vote.Value.OBJECT, reason, via)
    record(Action.PROMOTION_OBJECTED, request, actor, reason=reason)
    reevaluate(request)
    request.refresh_from_db()
    return request


@transaction.atomic
def withdraw_vote(promotion_id: int, *, actor: User, reason: str = "", via: str = Vote.Via.WEB) -> PromotionRequest:
    """Take back your own approval or objection. You can vote again.

    Raises NotFound, IllegalTransition, Conflict when you have no vote in force.
    """
    request = lock_alone(actor, promotion_id)
    none = Vote(request=request, voter=actor, value=Vote.Value.WITHDRAW)
    vote = request.votes.filter(voter=actor).first() or none
    refuse_if(why_not_withdraw_vote(request, vote), state=request.state)
    _, evaluation = evaluate(request)
    details = VoteWithdrawn(vote=vote.value)
    store_vote(vote, Vote.Value.WITHDRAW, reason, via, evaluation)
    record(Action.PROMOTION_VOTE_WITHDRAWN, request, actor, reason=reason, details=details)
    reevaluate(request)
    request.refresh_from_db()
    return request


@transaction.atomic
def overrule(promotion_id: int, voter: str, *, actor: User, reason: str) -> PromotionRequest:
    """Decide, with a reason, that the objection of `voter` does not stop the request. It stays on record.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    request = lock_alone(actor, promotion_id)
    refuse_if(why_not_overrule(actor, request), state=request.state)
    if not reason.strip():
        raise Malformed("Enter a reason: it is shown with the objection.")
    vote = request.votes.filter(voter__username=voter, value=Vote.Value.OBJECT, overruled_at=None).first()
    if vote is None:
        raise NotFound(f"{request} has no objection of this user that stops it.")
    if vote.voter_id == actor.pk:
        raise Conflict("This is your own objection. Withdraw it instead.")
    vote.overruled_at, vote.overruled_by, vote.overrule_reason = clock.now(), actor, reason.strip()
    vote.save(update_fields=["overruled_at", "overruled_by", "overrule_reason"])
    details = ObjectionOverruled(voter=voter)
    record(Action.PROMOTION_OBJECTION_OVERRULED, request, actor, reason=reason, details=details)
    reevaluate(request)
    request.refresh_from_db()
    return request


def cast(
    request: PromotionRequest, actor: User, value: str, comment: str, via: str, *, signed: Signed | None = None
) -> None:
    """Store a vote on a locked request, judged now. An approval can need a signature or a fresh second factor."""
    refuse_if(why_not_cast(actor, request), state=request.state)
    if value == Vote.Value.APPROVE and signed is None:
        refuse_if(why_not_unsigned(request.environment) or why_no_step_up(actor, request.environment))
    vote = request.votes.filter(voter=actor).first()
    if vote is None:
        vote = Vote(request=request, voter=actor)
    elif value == vote.value and vote.is_standing and vote.overruled_at is None and not adds_proof(vote, signed):
        # Before the evaluation: others wait for this row, so a second click must take little time.
        raise Conflict("You have already voted on this request.")
    if is_overdue(request):
        raise IllegalTransition(f"The time of {request} is over. Request it again.")
    _, evaluation = evaluate(request)
    if signed is not None:
        signed.require(request, evaluation)
    store_vote(vote, value, comment, via, evaluation, signed=signed)


def store_vote(
    vote: Vote, value: str, comment: str, via: str, evaluation: Evaluation, *, signed: Signed | None = None
) -> None:
    """Write the vote, bound to the digest and to the evidence, with the policies' revisions, that its voter saw."""
    vote.value, vote.comment, vote.via = value, comment.strip(), via
    vote.digest, vote.evaluation = vote.request.image.digest, evaluation
    vote.signed = signed.document if signed is not None else None
    vote.is_strong = is_strong(signed)
    vote.at, vote.lapsed_at, vote.lapse_reason = clock.now(), None, ""
    vote.overruled_at, vote.overruled_by, vote.overrule_reason = None, None, ""
    vote.save()


@transaction.atomic
def withdraw(promotion_id: int, *, actor: User, reason: str = "") -> PromotionRequest:
    """Withdraw a request, as its requester or as a user with environment.manage.

    Raises NotFound, NotPermitted, IllegalTransition.
    """
    request = lock_alone(actor, promotion_id)
    refuse_if(why_not_withdraw(actor, request), state=request.state)
    moment = clock.now()
    seen = {"seen_at": moment} if request.requested_by_id == actor.pk else {}
    move(request, State.WITHDRAWN, decided_at=moment, **seen)
    record(Action.PROMOTION_WITHDRAWN, request, actor, reason=reason)
    return request


@transaction.atomic
def execute(promotion_id: int, *, actor: User) -> PromotionRequest:
    """Evaluate the request again, claim the slot and queue the copy.

    Raises NotFound, NotPermitted, IllegalTransition, PolicyBlocked with the reasons, or Conflict while another
    promotion is running in the slot.
    """
    hold_off()  # so that an image cannot be quarantined between the check and the commit
    request = lock_alone(actor, promotion_id)
    require(actor, verb_to_run(request), repository=request.repository, environment=request.environment)
    refuse_if(why_not_run(actor, request), state=request.state)
    return start(request, actor=actor)


def start(request: PromotionRequest, *, actor: User) -> PromotionRequest:
    """Take the slot for a locked request that `actor` may run, after all requirements were evaluated again.

    Raises as `execute`.
    """
    slot = Slot.objects.select_for_update().get(repository=request.repository, environment=request.environment)
    verdict, evaluation = evaluate(request, RUNNING)
    if not verdict.is_allowed:
        raise PolicyBlocked("The request no longer meets all requirements.", reasons=list(verdict.reasons))
    if request.execute_by is not None and is_overdue(request):
        raise IllegalTransition(
            f"The time to run {request} ended at {request.execute_by:%Y-%m-%d %H:%M} UTC. Request it again."
        )
    busy = PromotionRequest.objects.filter(
        repository=request.repository, environment=request.environment, state__in=MOVING_STATES
    ).first()
    if busy is not None and not _preempt(busy, request):
        raise Conflict(f"{busy} is running in this environment. Try again when it finishes.")
    if actor.kind == User.Kind.SYSTEM and (why := why_not_automatic(request)):
        raise IllegalTransition(why)
    Slot.objects.filter(pk=slot.pk).update(fence=F("fence") + 1)
    move(request, State.EXECUTING, executed_by=actor, failure="", attempts=request.attempts + 1)
    target = target_reference(request.environment, request.repository)
    details = PromotionExecuting(evaluation=evaluation.digest, fence=slot.fence + 1, target=target)
    record(Action.PROMOTION_EXECUTING, request, actor, details=details)
    jobs.queue(
        PROMOTE,
        subject_id=request.pk,
        actor=actor,
        payload={"fence": slot.fence + 1},
        priority=5,
        max_attempts=COPY_ATTEMPTS_MAX,
    )
    return request


def _preempt(busy: PromotionRequest, request: PromotionRequest) -> bool:
    """Fail the running promotion for a rollback or break-glass; returns False when it must not, or is about to end.

    The caller then counts up the fence, and the worker of `busy` stops before its next step.
    """
    if request.kind in MOVES_ON or busy.kind not in MOVES_ON:
        return False
    rows = PromotionRequest.objects.select_for_update(of=("self",), skip_locked=True).filter(state__in=MOVING_STATES)
    locked = rows.select_related("image", "repository__team", "environment__team").filter(pk=busy.pk).first()
    if locked is None:  # its worker writes the result now, and waits for the slot: never wait for it here
        return False
    why = f"{request}, a {request.kind}, took its place."
    move(locked, State.FAILED, failure=why)
    record(Action.PROMOTION_FAILED, locked, system_user(), reason=why)
    if locked.release_set_id is not None:
        release_states.revert(locked.release_set_id, why=why, can_retry=False)
    return True


@transaction.atomic
def verify(request: PromotionRequest) -> None:
    """Record that the copy has finished and the target is being verified. The caller holds the job's fence.

    Raises Quarantined when the image was quarantined during the copy.
    """
    hold_off()
    refuse_if(why_quarantined(request.image))
    request = PromotionRequest.objects.select_for_update(of=("self",)).get(pk=request.pk)
    if request.state == State.EXECUTING:  # an earlier attempt may already have done this
        move(request, State.VERIFYING)
        record(Action.PROMOTION_VERIFYING, request, request.executed_by or system_user())


@transaction.atomic
def succeed(request: PromotionRequest) -> None:
    """Record that the target contains the approved digest. The caller holds the job's fence and has verified the copy.

    The promotion has succeeded, unless the environment asks a person or a service to verify it as well.
    """
    request = PromotionRequest.objects.select_for_update(of=("self",)).get(pk=request.pk)
    if request.is_final or request.verify_by is not None:  # a rollback or break-glass took its place, or it ran twice
        return
    fill_slot(request)
    if request.environment.verification != Environment.Verification.NONE:
        wait_for_verification(request)
        return
    _finish(request)


def fill_slot(request: PromotionRequest) -> None:
    """Record that the environment holds the image now, and since when."""
    slots = Slot.objects.filter(repository=request.repository, environment=request.environment)
    slots.update(image=request.image, tag=request.tag, since=Now())
    occupy(slots.get(), request.image)


def wait_for_verification(request: PromotionRequest) -> None:
    """Let a person or a service verify a promotion whose copy is complete. The slot stays taken meanwhile."""
    environment = request.environment
    request.verify_by = clock.now() + timedelta(seconds=environment.verify_within_s)
    request.save(update_fields=["verify_by"])
    details = VerificationAsked(by=environment.verification, due_at=request.verify_by.isoformat())
    record(Action.PROMOTION_TO_VERIFY, request, request.executed_by or system_user(), details=details)
    if environment.verification == Environment.Verification.HTTP:
        fence = Slot.objects.get(repository=request.repository, environment=environment).fence
        jobs.queue(CHECK, subject_id=request.pk, actor=system_user(), payload={"fence": fence}, max_attempts=8)


def finish_verification(request: PromotionRequest, *, is_good: bool, why: str, actor: User) -> None:
    """Record what the verification of a locked, waiting request said. Its image is in the environment already.

    When it failed, the environment can ask for a rollback; never after a rollback.
    """
    request.verify_by = None
    request.save(update_fields=["verify_by"])
    if is_good:
        _finish(request, reason=why)
        return
    move(request, State.FAILED, failure=f"The verification failed: {why}"[:2000])
    record(Action.PROMOTION_FAILED, request, actor, reason=request.failure)


def _finish(request: PromotionRequest, reason: str = "") -> None:
    move(request, State.SUCCEEDED)
    actor = request.executed_by or system_user()
    record(Action.PROMOTION_SUCCEEDED, request, actor, reason=reason, details=TagDetails(tag=request.tag))
    if request.kind == PromotionRequest.Kind.ROLLBACK:
        hold_after_rollback(request)


@transaction.atomic
def fail(request: PromotionRequest, *, why: str, is_technical: bool = False) -> None:
    """Record that the copy failed. The slot keeps its image.

    After a technical failure the request returns to ready, with the reason, while attempts are left. The votes still
    count, and the next run completes the partial copy. Any other failure is final.
    """
    request = PromotionRequest.objects.select_for_update(of=("self",)).get(pk=request.pk)
    if request.is_final:
        return
    if is_technical and request.state in MOVING_STATES and request.attempts < EXECUTIONS_MAX:
        move(request, State.READY, failure=why[:2000])
        record(Action.PROMOTION_ATTEMPT_FAILED, request, system_user(), reason=why[:2000])
        return
    move(request, State.FAILED, failure=why[:2000])
    record(Action.PROMOTION_FAILED, request, system_user(), reason=why[:2000])


def judge_open(*, limit: int = JUDGED_AT_ONCE) -> int:
    """Evaluate the due open and ready requests, so that a finished scan can move a request without user action.

    Returns the number of evaluated requests, limited by JUDGED_FOR_S. Safe to run twice or concurrently: an unchanged
    result stores no new evaluation. Each request has its own transaction. A request that is locked now, for example by
    a vote, is skipped until the next round. So a vote waits for at most one evaluation.
    """
    judged, until = 0, time.monotonic() + JUDGED_FOR_S
    for pk in due_for_judgement(limit):
        if time.monotonic() > until:
            break
        with transaction.atomic():
            request = (
                PromotionRequest.objects.select_related("image", "repository__team", "environment__team")
                .select_for_update(of=("self",), skip_locked=True)
                .filter(pk=pk, state__in=LIVE_STATES)
                .first()
            )
            if request is not None:
                judge_locked(request)
                judged += 1
    return judged


def expire_due() -> None:
    """Expire requests that were not approved or not run in time, by the database's clock."""
    alone = PromotionRequest.objects.filter(OVERDUE, release_set=None)  # a set expires as a whole
    overdue = alone.select_for_update(of=("self",), skip_locked=True)
    with transaction.atomic():
        for request in overdue:
            deadline = "approve_by" if request.state == State.OPEN else "execute_by"
            move(request, State.EXPIRED)
            record(Action.PROMOTION_EXPIRED, request, system_user(), reason=deadline)
