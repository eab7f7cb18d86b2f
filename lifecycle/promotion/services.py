"""Actions on promotions. Each function checks, locks, changes, audits and queues in one transaction."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final

import orjson
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, Details, PromotionExecuting, TagDetails, VoteLapsed
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, PolicyBlocked
from lifecycle.core.reasons import refuse_if
from lifecycle.core.states import check_move
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment, Slot
from lifecycle.environments.queries import previous_environment
from lifecycle.jobs import services as jobs
from lifecycle.policy.judging import judge_promotion
from lifecycle.policy.types import Status, Verdict
from lifecycle.promotion.access import lock_promotion, promotable_image
from lifecycle.promotion.kinds import PROMOTE
from lifecycle.promotion.models import Evaluation, PromotionRequest, Vote
from lifecycle.promotion.queries import (
    LIVE_STATES,
    MOVING_STATES,
    due_for_judgement,
    evidence_of,
    facts_of,
    renamed,
    unseen_results_of,
)
from lifecycle.promotion.refusals import (
    why_not_request,
    why_not_request_image,
    why_not_run,
    why_not_tag,
    why_not_vote,
    why_not_withdraw,
)
from lifecycle.rebuild.graph import line_images_of
from lifecycle.rebuild.models import RebuildJob
from lifecycle.registry.models import Image, Repository

State = PromotionRequest.State

APPROVE_WITHIN: Final = timedelta(days=7)
EXECUTE_WITHIN: Final = timedelta(hours=72)
EXECUTIONS_MAX: Final = 3  # after this many technical failures, the promotion must be requested again
COPY_ATTEMPTS_MAX: Final = 8  # per run: with jobs.RETRY_AFTER_S, the registry can be down for 15 minutes
JUDGED_AT_ONCE: Final = 100  # requests per round; the rest waits for the next round
JUDGED_FOR_S: Final = 2.0  # per round: the same ticker also sends lost wake-ups


def move(request: PromotionRequest, state: str, **changes: object) -> None:
    """Move a locked request to `state`; the only writer of `state`. Raises IllegalTransition."""
    check_move(request, state)
    request.state = state
    for name, value in changes.items():
        setattr(request, name, value)
    if request.is_final:
        request.finished_at = clock.now()
    request.save(update_fields=["state", "finished_at", *changes])


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
        raise Malformed("Enter a reason: approvers need it to review the request.")
    image = promotable_image(repository, digest)
    tag = tag or _tag_of(repository, image)
    refuse_if(why_not_tag(tag))
    # The slot's lock serialises requests: either we find the unfinished one, or ours is the first.
    slot, _ = Slot.objects.get_or_create(repository=repository, environment=environment)
    slot = Slot.objects.select_for_update().get(pk=slot.pk)
    same = PromotionRequest.objects.filter(
        image=image, repository=repository, environment=environment, state__in=PromotionRequest.NEXT
    ).first()
    if same is not None:
        return same
    refuse_if(why_not_request_image(actor, repository, environment, image, slot=slot))
    request = PromotionRequest.objects.create(
        image=image,
        repository=repository,
        environment=environment,
        source_environment=previous_environment(environment),
        tag=tag,
        kind=_kind_of(slot, image),
        requested_by=actor,
        reason=reason.strip(),
        approve_by=clock.now() + APPROVE_WITHIN,
    )
    audit.record(
        Action.PROMOTION_REQUESTED, actor=actor, subject=request, repository=repository, environment=environment,
        image=image, reason=request.reason, details=TagDetails(tag=request.tag),
    )  # fmt: skip
    for requirement in reevaluate(request).requirements:
        if requirement["name"] == "approvals" and requirement["status"] == Status.UNSATISFIED:
            raise PolicyBlocked("No user can approve this request.", reasons=[requirement["summary"]])
    request.refresh_from_db()
    return request


def _kind_of(slot: Slot, image: Image) -> str:
    """Return the kind of request: a refresh when `image` is a rebuild of the image in the slot, else forward."""
    rebuilds = RebuildJob.objects.filter(repository=slot.repository_id, new_image=image, state=RebuildJob.State.DONE)
    for job in rebuilds:
        if slot.image_id in line_images_of({slot.repository_id: {job.tag}})[slot.repository_id] - {image.pk}:
            return PromotionRequest.Kind.REBUILD_REFRESH
    return PromotionRequest.Kind.FORWARD


def _tag_of(repository: Repository, image: Image) -> str:
    """Return the most recently updated tag of the image in its repository, or a name made from its digest."""
    tag = repository.tags.filter(image=image).order_by("-updated_at").values_list("name", flat=True).first()
    return tag or "sha-" + Digest.parse(image.digest).encoded[:12]


def evaluate(request: PromotionRequest) -> tuple[Verdict, Evaluation]:
    """Evaluate a locked request with the current data and store the result when it changed. Votes can lapse here."""
    inputs = evidence_of(request)
    _lapse_votes(request, inputs)
    facts = facts_of(request)
    verdict = judge_promotion(facts)
    requirements = [requirement.as_json() for requirement in verdict.requirements]
    content = orjson.dumps({"requirements": requirements, "inputs": inputs}, option=orjson.OPT_SORT_KEYS)
    digest = Digest.of(content).text
    latest = request.evaluations.order_by("-pk").first()
    if latest is None or latest.digest != digest:
        latest = Evaluation.objects.create(
            request=request, requirements=requirements, inputs=inputs, digest=digest, is_satisfied=verdict.is_allowed
        )
    # Matching without a result leaves no time stamp. So the request stays due until matching has finished.
    is_matched = all(platform.is_matched for platform in facts.platforms)
    PromotionRequest.objects.filter(pk=request.pk).update(judged_at=Now() if is_matched else None)
    return verdict, latest


def _lapse_votes(request: PromotionRequest, inputs: dict[str, Any]) -> None:
    """Lapse approvals when the image has a critical or high finding that was not in the voter's evidence, or more that
    nobody could judge.

    An approval is bound to its evidence. Fixed findings, or another image in the target, do not affect it.
    """
    if inputs["findings"] is None:
        return
    for vote in request.votes.filter(value=Vote.Value.APPROVE, lapsed_at=None).select_related("evaluation", "voter"):
        seen = (vote.evaluation.inputs.get("findings") or {}) if vote.evaluation else {}
        why = _why_lapsed(seen, inputs["findings"])
        if why:
            vote.lapsed_at, vote.lapse_reason = clock.now(), why
            vote.save(update_fields=["lapsed_at", "lapse_reason"])
            details = VoteLapsed(voter=vote.voter.username)
            _record(Action.PROMOTION_VOTE_LAPSED, request, system_user(), reason=vote.lapse_reason, details=details)


def _why_lapsed(seen: dict[str, Any], now: dict[str, Any]) -> str:
    """Return why an approval given for the findings `seen` does not hold for those `now`; "" when it holds."""
    appeared = sorted(set(now["severe"]) - set(seen.get("severe", ())))
    if appeared:  # the same vulnerability can have another name since the vote
        appeared = sorted(set(appeared) - renamed(seen.get("severe", ())))
    if appeared:
        names = ", ".join(appeared[:3]) + (f" and {len(appeared) - 3} more" if len(appeared) > 3 else "")
        return f"New findings since the vote: {names}."
    more = now["unjudged"] - seen.get("unjudged", 0)
    if more > 0:
        return f"Since the vote, {more} more package{'' if more == 1 else 's'} could not be judged."
    if now["without_packages"] > seen.get("without_packages", 0):
        return "The evidence of the vote did not say that no packages were recognised."
    return ""


def mark_for_judgement(voter_ids: Collection[int]) -> None:
    """Make the live requests that these users voted on due for the next evaluation round."""
    voted_on = PromotionRequest.objects.filter(state__in=LIVE_STATES, votes__voter__in=list(voter_ids))
    voted_on.update(judged_at=None)


@transaction.atomic
def reevaluate(request: PromotionRequest) -> Evaluation:
    """Evaluate an open or ready request again, and move it between the two states when the verdict changed."""
    rows = PromotionRequest.objects.select_related("image", "repository__team", "environment__team")
    return _judge(rows.select_for_update(of=("self",)).get(pk=request.pk))


def _judge(request: PromotionRequest) -> Evaluation:
    verdict, evaluation = evaluate(request)
    if request.state == State.OPEN and verdict.is_allowed:
        moment = clock.now()
        move(request, State.READY, decided_at=moment, execute_by=moment + EXECUTE_WITHIN)
        _record(Action.PROMOTION_READY, request, system_user())
    elif request.state == State.READY and not verdict.is_allowed:
        move(request, State.OPEN, decided_at=None, execute_by=None)
        _record(Action.PROMOTION_REGRESSED, request, system_user(), reason="; ".join(verdict.reasons))
    return evaluation


def _record(
    action: Action, request: PromotionRequest, actor: User, *, reason: str = "", details: Details | None = None
) -> None:
    audit.record(
        action, actor=actor, subject=request, repository=request.repository, environment=request.environment,
        image=request.image, reason=reason, details=details,
    )  # fmt: skip


@transaction.atomic
def approve(promotion_id: int, *, actor: User, reason: str = "", via: str = Vote.Via.WEB) -> PromotionRequest:
    """Approve a request. It becomes ready when all other requirements are met.

    Raises NotFound, NotPermitted (also for the requester, even an admin: docs/adr/0004), IllegalTransition.
    """
    request = lock_promotion(actor, promotion_id, Verb.PROMOTION_APPROVE)
    _vote(request, actor, Vote.Value.APPROVE, reason, via)
    _record(Action.PROMOTION_APPROVED, request, actor, reason=reason)
    reevaluate(request)
    request.refresh_from_db()
    return request


@transaction.atomic
def reject(promotion_id: int, *, actor: User, reason: str, via: str = Vote.Via.WEB) -> PromotionRequest:
    """Reject a request permanently, with a reason. Raises NotFound, NotPermitted, IllegalTransition, Malformed."""
    request = lock_promotion(actor, promotion_id, Verb.PROMOTION_APPROVE)
    if not reason.strip():
        raise Malformed("Enter a reason: the requester needs to know what to change.")
    _vote(request, actor, Vote.Value.REJECT, reason, via)
    move(request, State.REJECTED, decided_at=clock.now())
    _record(Action.PROMOTION_REJECTED, request, actor, reason=reason)
    return request


def _vote(request: PromotionRequest, actor: User, value: str, comment: str, via: str) -> None:
    refuse_if(why_not_vote(actor, request), state=request.state)
    _, evaluation = evaluate(request)
    vote = request.votes.filter(voter=actor).first()
    if vote is None:
        vote = Vote(request=request, voter=actor)
    elif value == Vote.Value.APPROVE and vote.lapsed_at is None:
        raise Conflict("You have already voted on this request.")
    vote.value, vote.comment, vote.via = value, comment.strip(), via
    vote.digest, vote.evaluation = request.image.digest, evaluation
    vote.at, vote.lapsed_at, vote.lapse_reason = clock.now(), None, ""
    vote.save()


@transaction.atomic
def withdraw(promotion_id: int, *, actor: User, reason: str = "") -> PromotionRequest:
    """Withdraw a request, as its requester or as a user with environment.manage.

    Raises NotFound, NotPermitted, IllegalTransition.
    """
    request = lock_promotion(actor, promotion_id)
    refuse_if(why_not_withdraw(actor, request), state=request.state)
    moment = clock.now()
    seen = {"seen_at": moment} if request.requested_by_id == actor.pk else {}
    move(request, State.WITHDRAWN, decided_at=moment, **seen)
    _record(Action.PROMOTION_WITHDRAWN, request, actor, reason=reason)
    return request


def mark_results_seen(actor: User, promotion_id: int | None = None) -> None:
    """Record that `actor` saw how their requests ended: one request, or all. No audit event: nothing else changes."""
    rows = unseen_results_of(actor)
    rows = rows.filter(pk=promotion_id) if promotion_id is not None else rows
    ids = list(rows.values_list("pk", flat=True))
    if ids:
        PromotionRequest.objects.filter(pk__in=ids, seen_at=None).update(seen_at=clock.now())


@transaction.atomic
def execute(promotion_id: int, *, actor: User) -> PromotionRequest:
    """Evaluate the request again, claim the slot and queue the copy.

    Raises NotFound, NotPermitted, IllegalTransition, PolicyBlocked with the reasons, or Conflict while another
    promotion is running in the slot.
    """
    request = lock_promotion(actor, promotion_id, Verb.PROMOTION_EXECUTE)
    refuse_if(why_not_run(actor, request), state=request.state)
    slot = Slot.objects.select_for_update().get(repository=request.repository, environment=request.environment)
    verdict, evaluation = evaluate(request)
    if not verdict.is_allowed:
        raise PolicyBlocked("The request no longer meets all requirements.", reasons=list(verdict.reasons))
    if request.execute_by is not None and request.execute_by < clock.now():
        raise IllegalTransition(
            f"The time to run {request} ended at {request.execute_by:%Y-%m-%d %H:%M} UTC. Request it again."
        )
    busy = PromotionRequest.objects.filter(
        repository=request.repository, environment=request.environment, state__in=MOVING_STATES
    ).first()
    if busy is not None:
        raise Conflict(f"{busy} is running in this environment. Try again when it finishes.")
    Slot.objects.filter(pk=slot.pk).update(fence=F("fence") + 1)
    move(request, State.EXECUTING, executed_by=actor, failure="", attempts=request.attempts + 1)
    details = PromotionExecuting(evaluation=evaluation.digest, fence=slot.fence + 1)
    _record(Action.PROMOTION_EXECUTING, request, actor, details=details)
    jobs.queue(
        PROMOTE,
        subject_id=request.pk,
        actor=actor,
        payload={"fence": slot.fence + 1},
        priority=5,
        max_attempts=COPY_ATTEMPTS_MAX,
    )
    return request


@transaction.atomic
def verify(request: PromotionRequest) -> None:
    """Record that the copy has finished and the target is being verified. The caller holds the job's fence."""
    request = PromotionRequest.objects.select_for_update(of=("self",)).get(pk=request.pk)
    if request.state == State.EXECUTING:  # an earlier attempt may already have done this
        move(request, State.VERIFYING)
        _record(Action.PROMOTION_VERIFYING, request, request.executed_by or system_user())


@transaction.atomic
def succeed(request: PromotionRequest) -> None:
    """Record that the target contains the approved digest. The caller holds the job's fence and has verified it."""
    request = PromotionRequest.objects.select_for_update(of=("self",)).get(pk=request.pk)
    Slot.objects.filter(repository=request.repository, environment=request.environment).update(
        image=request.image, tag=request.tag, since=Now()
    )
    move(request, State.SUCCEEDED)
    actor = request.executed_by or system_user()
    _record(Action.PROMOTION_SUCCEEDED, request, actor, details=TagDetails(tag=request.tag))


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
        _record(Action.PROMOTION_ATTEMPT_FAILED, request, system_user(), reason=why[:2000])
        return
    move(request, State.FAILED, failure=why[:2000])
    _record(Action.PROMOTION_FAILED, request, system_user(), reason=why[:2000])


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
                _judge(request)
                judged += 1
    return judged


def expire_due() -> None:
    """Expire requests that were not approved or not run in time, by the database's clock."""
    overdue = PromotionRequest.objects.select_for_update(of=("self",), skip_locked=True).filter(
        Q(state=State.OPEN, approve_by__lt=Now()) | Q(state=State.READY, execute_by__lt=Now())
    )
    with transaction.atomic():
        for request in overdue:
            deadline = "approve_by" if request.state == State.OPEN else "execute_by"
            move(request, State.EXPIRED)
            _record(Action.PROMOTION_EXPIRED, request, system_user(), reason=deadline)
