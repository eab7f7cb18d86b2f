"""Actions on release sets: several requests that are asked, decided and run as one (docs/adr/0016).

Each action locks all members in the order of their ids, then the set, and the slots in the order of their repositories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import (
    ObjectionOverruled,
    PromotionExecuting,
    PromotionReminded,
    ReleaseSetMembers,
    VoteWithdrawn,
)
from lifecycle.authority.rights import require
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, PolicyBlocked
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment, Slot
from lifecycle.jobs import services as jobs
from lifecycle.promotion import exclusions, release_states
from lifecycle.promotion.access import promotable_image
from lifecycle.promotion.evaluating import evaluate, move, record
from lifecycle.promotion.gates import RUNNING
from lifecycle.promotion.kinds import RELEASE
from lifecycle.promotion.models import PromotionRequest, ReleaseSet, Vote
from lifecycle.promotion.opening import wait_for_window
from lifecycle.promotion.queries import MOVING_STATES, target_reference
from lifecycle.promotion.refusals import why_not_request, why_not_request_image, why_not_tag
from lifecycle.promotion.release_queries import (
    LIVE,
    set_for,
    unseen_sets_of,
    why_no_sets,
    why_not_decided,
    why_not_in_set,
    why_not_overrule_set,
    why_not_run_set,
    why_not_withdraw_set,
    why_set_waits,
)
from lifecycle.promotion.release_states import lock_row, move_set
from lifecycle.promotion.services import (
    COPY_ATTEMPTS_MAX,
    cast,
    judge_new,
    kind_of,
    lock_slot,
    reevaluate,
    store_request,
    store_vote,
    tag_of,
)
from lifecycle.promotion.signed_votes import Signature, Signed, approval_details, statement, verified
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.quarantine.services import hold_off
from lifecycle.registry.models import Image, Repository

State, MemberState = ReleaseSet.State, PromotionRequest.State
MEMBERS_MAX: Final = 50
REMIND_WITHIN: Final = timedelta(hours=24)  # before a deadline, or a quarter of the time for it, if that is less


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a member of a new set names: a digest, or the tag that points to it now, of one repository."""

    repository: Repository
    digest: str = ""
    tag: str = ""


@transaction.atomic
def request_set(wanted: Sequence[Wanted], environment: Environment, *, actor: User, reason: str) -> ReleaseSet:
    """Request several images, charts and other artifacts for one environment, as one.

    An unfinished set of the same images is returned instead. Raises NotFound, NotPermitted, Malformed, PolicyBlocked,
    or Conflict when the environment holds one of them, or another request for it is not finished.
    """
    if not reason.strip():
        raise Malformed("Enter a reason: approvers need it to decide on the request.")
    if not 2 <= len(wanted) <= MEMBERS_MAX:
        raise Malformed(f"A release set has 2 to {MEMBERS_MAX} members.")
    if len({row.repository.pk for row in wanted}) != len(wanted):
        raise Malformed("Name each repository once: an environment holds one image of it.")
    ordered = sorted(wanted, key=lambda row: row.repository.pk)
    for row in ordered:
        refuse_if(why_not_request(actor, row.repository, environment))
    refuse_if(why_no_sets(environment))
    chosen = [_chosen(row) for row in ordered]
    slots = [lock_slot(row.repository, environment) for row in ordered]
    if (same := _same_set(chosen, ordered, environment)) is not None:
        return same
    for slot, (image, _) in zip(slots, chosen, strict=True):
        live = PromotionRequest.objects.filter(
            image=image, repository=slot.repository, environment=environment, state__in=PromotionRequest.NEXT
        ).first()
        if live is not None:
            raise Conflict(f"{live} already requests {slot.repository.name}. Withdraw it first.", promotion=live.pk)
        why = why_not_request_image(
            actor, slot.repository, environment, image, slot=slot, quarantine=why_quarantined(image)
        )
        refuse_if(why, repository=slot.repository.name)
    release_set = ReleaseSet.objects.create(
        environment=environment,
        size=len(chosen),
        requested_by=actor,
        reason=reason.strip(),
        approve_by=clock.now() + timedelta(seconds=environment.approve_within_s),
    )
    made = [
        store_request(
            slot, image, tag=tag, kind=kind_of(slot, image), actor=actor, reason=reason, release_set=release_set
        )
        for slot, (image, tag) in zip(slots, chosen, strict=True)
    ]
    names = tuple(f"{row} {row.repository.name}:{row.tag}@{row.image.digest}" for row in made)
    details = ReleaseSetMembers(members=names)
    release_states.record(Action.RELEASE_SET_REQUESTED, release_set, actor, reason=release_set.reason, details=details)
    for request in made:
        judge_new(request)
    release_set.refresh_from_db()
    return release_set


def _chosen(row: Wanted) -> tuple[Image, str]:
    """Return the image that a member names, pinned by digest, and the tag that it gets in the target."""
    digest = row.digest
    if not digest:
        tag = row.repository.tags.filter(name=row.tag, image__isnull=False).select_related("image").first()
        if tag is None or tag.image is None:
            raise NotFound(f"{row.repository} has no tag {row.tag[:128]}.")
        digest = tag.image.digest
    image = promotable_image(row.repository, Digest.parse(digest).text)
    name = row.tag or tag_of(row.repository, image)
    refuse_if(why_not_tag(name))
    return image, name


def _same_set(
    chosen: Sequence[tuple[Image, str]], wanted: Sequence[Wanted], environment: Environment
) -> ReleaseSet | None:
    """Return the unfinished set of exactly these images; the slots are locked, so there is at most one."""
    pairs = {(row.repository.pk, image.pk) for row, (image, _) in zip(wanted, chosen, strict=True)}
    first = PromotionRequest.objects.filter(
        environment=environment, repository=wanted[0].repository, image=chosen[0][0], release_set__isnull=False,
        state__in=PromotionRequest.NEXT,
    ).first()  # fmt: skip
    if first is None or first.release_set is None:
        return None
    theirs = set(first.release_set.members.values_list("repository", "image"))
    return first.release_set if theirs == pairs else None


def lock_members(release_set: ReleaseSet) -> list[PromotionRequest]:
    """Return the members, locked in the order of their ids until the transaction ends."""
    rows = PromotionRequest.objects.select_related(
        "image", "repository__team", "repository__registry", "environment__team", "requested_by"
    )
    return list(rows.select_for_update(of=("self",)).filter(release_set=release_set).order_by("pk"))


def lock_set(actor: User, set_id: int, verb: Verb | None = None) -> tuple[ReleaseSet, list[PromotionRequest]]:
    """Return the set and its members, locked. `actor` must see all of them, and have `verb` on each.

    Raises NotFound when it is absent or hidden, NotPermitted when the right is missing.
    """
    members = lock_members(set_for(actor, set_id))
    if verb is not None:
        for row in members:
            require(actor, verb, repository=row.repository, environment=row.environment)
    return lock_row(set_id), members


def _vote(
    set_id: int, value: str, *, actor: User, reason: str, via: str, signed: Signed | None = None
) -> tuple[ReleaseSet, list[PromotionRequest], list[PromotionRequest]]:
    """Store one vote on every member, and return the set, its members, and those that got the vote now.

    Members on which the same vote stands already keep it.
    """
    release_set, members = lock_set(actor, set_id, Verb.PROMOTION_APPROVE)
    exclusions.look_up(members)
    if value != Vote.Value.APPROVE and not reason.strip():
        raise Malformed("Enter a reason: the requester needs to know what to change.")
    refuse_if(why_not_decided(release_set), state=release_set.state)
    refuse_if(why_not_in_set(actor, members), state=release_set.state)
    votes = Vote.objects.filter(request__release_set=release_set, voter=actor, value=value, overruled_at=None)
    standing = {vote.request_id for vote in votes if vote.is_standing}
    voting = [row for row in members if row.pk not in standing]
    if not voting:
        raise Conflict("You have already voted on this release set.")
    for row in voting:
        cast(row, actor, value, reason, via, signed=signed)
    return release_set, members, voting


@transaction.atomic
@exclusions.looked_up_once()
def prepare_signature(set_id: int, *, actor: User) -> bytes:
    """Return the statement that `actor` signs to approve a set: one signature over all members, as evaluated now.

    Raises what the vote itself would raise.
    """
    release_set, members = lock_set(actor, set_id, Verb.PROMOTION_APPROVE)
    exclusions.look_up(members)
    refuse_if(why_not_decided(release_set), state=release_set.state)
    refuse_if(why_not_in_set(actor, members), state=release_set.state)
    return statement(actor, members)


@transaction.atomic
@exclusions.looked_up_once()
def approve(
    set_id: int,
    *,
    actor: User,
    reason: str = "",
    via: str = Vote.Via.WEB,
    signature: Signature | None = None,
) -> ReleaseSet:
    """Approve a set: one vote on each member. It is ready when all members are.

    One `signature` covers all members. Raises NotFound, NotPermitted, StepUpRequired, IllegalTransition, Conflict.
    """
    signed = verified(actor, signature) if signature is not None else None
    release_set, members, voting = _vote(set_id, Vote.Value.APPROVE, actor=actor, reason=reason, via=via, signed=signed)
    for row in voting:
        record(Action.PROMOTION_APPROVED, row, actor, reason=reason, details=approval_details(signed))
    release_states.record(Action.RELEASE_SET_APPROVED, release_set, actor, reason=reason)
    return _judged(release_set, members)


@transaction.atomic
@exclusions.looked_up_once()
def object_to(set_id: int, *, actor: User, reason: str, via: str = Vote.Via.WEB) -> ReleaseSet:
    """Object to a set, with a reason. It waits until the objection is withdrawn or overruled.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed, Conflict.
    """
    release_set, members, voting = _vote(set_id, Vote.Value.OBJECT, actor=actor, reason=reason, via=via)
    for row in voting:
        record(Action.PROMOTION_OBJECTED, row, actor, reason=reason)
    release_states.record(Action.RELEASE_SET_OBJECTED, release_set, actor, reason=reason)
    return _judged(release_set, members)


@transaction.atomic
@exclusions.looked_up_once()
def reject(set_id: int, *, actor: User, reason: str, via: str = Vote.Via.WEB) -> ReleaseSet:
    """Reject a set and all its members permanently, with a reason.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    release_set, members, _ = _vote(set_id, Vote.Value.REJECT, actor=actor, reason=reason, via=via)
    moment = clock.now()
    for row in members:
        move(row, MemberState.REJECTED, decided_at=moment)
        record(Action.PROMOTION_REJECTED, row, actor, reason=reason)
    move_set(release_set, State.REJECTED, decided_at=moment)
    release_states.record(Action.RELEASE_SET_REJECTED, release_set, actor, reason=reason)
    return release_set


@transaction.atomic
@exclusions.looked_up_once()
def withdraw_vote(set_id: int, *, actor: User, reason: str = "", via: str = Vote.Via.WEB) -> ReleaseSet:
    """Take back your own approval of, or objection to, all members. You can vote again.

    Raises NotFound, IllegalTransition, Conflict when you have no vote in force.
    """
    release_set, members = lock_set(actor, set_id)
    exclusions.look_up(members)
    refuse_if(why_not_decided(release_set), state=release_set.state)
    votes = {row.request_id: row for row in Vote.objects.filter(request__release_set=release_set, voter=actor)}
    standing = [row for row in members if row.pk in votes and votes[row.pk].is_standing]
    if not standing:
        raise Conflict("You have no vote on this release set that you could withdraw.")
    for row in standing:
        vote = votes[row.pk]
        vote.request = row
        _, evaluation = evaluate(row)
        details = VoteWithdrawn(vote=vote.value)
        store_vote(vote, Vote.Value.WITHDRAW, reason, via, evaluation)
        record(Action.PROMOTION_VOTE_WITHDRAWN, row, actor, reason=reason, details=details)
    release_states.record(Action.RELEASE_SET_VOTE_WITHDRAWN, release_set, actor, reason=reason)
    return _judged(release_set, members)


@transaction.atomic
@exclusions.looked_up_once()
def overrule(set_id: int, voter: str, *, actor: User, reason: str) -> ReleaseSet:
    """Decide, with a reason, that the objection of `voter` does not stop the set. It stays on record.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    release_set, members = lock_set(actor, set_id)
    exclusions.look_up(members)
    refuse_if(why_not_overrule_set(actor, members), state=release_set.state)
    if not reason.strip():
        raise Malformed("Enter a reason: it is shown with the objection.")
    votes = Vote.objects.filter(
        request__release_set=release_set, voter__username=voter, value=Vote.Value.OBJECT, overruled_at=None
    )
    if not votes.exists():
        raise NotFound(f"{release_set} has no objection of this user that stops it.")
    if votes.filter(voter=actor).exists():
        raise Conflict("This is your own objection. Withdraw it instead.")
    rows = {row.pk: row for row in members}
    details = ObjectionOverruled(voter=voter)
    for pk in list(votes.values_list("request", flat=True)):
        record(Action.PROMOTION_OBJECTION_OVERRULED, rows[pk], actor, reason=reason, details=details)
    votes.update(overruled_at=clock.now(), overruled_by=actor, overrule_reason=reason.strip())
    release_states.record(Action.RELEASE_SET_OVERRULED, release_set, actor, reason=reason, details=details)
    return _judged(release_set, members)


def _judged(release_set: ReleaseSet, members: Sequence[PromotionRequest]) -> ReleaseSet:
    """Evaluate all members again; the set follows them."""
    for row in members:
        reevaluate(row)
    release_set.refresh_from_db()
    return release_set


@transaction.atomic
def withdraw(set_id: int, *, actor: User, reason: str = "") -> ReleaseSet:
    """Withdraw a set with all its members, as its requester or as a user with environment.manage.

    Raises NotFound, NotPermitted, IllegalTransition.
    """
    release_set, members = lock_set(actor, set_id)
    refuse_if(why_not_withdraw_set(actor, release_set), state=release_set.state)
    moment = clock.now()
    for row in members:
        move(row, MemberState.WITHDRAWN, decided_at=moment)
        record(Action.PROMOTION_WITHDRAWN, row, actor, reason=reason)
    seen = {"seen_at": moment} if release_set.requested_by_id == actor.pk else {}
    move_set(release_set, State.WITHDRAWN, decided_at=moment, **seen)
    release_states.record(Action.RELEASE_SET_WITHDRAWN, release_set, actor, reason=reason)
    return release_set


@transaction.atomic
def execute(set_id: int, *, actor: User) -> ReleaseSet:
    """Evaluate all members again, claim all slots, and queue one job for all of them.

    Raises NotFound, NotPermitted, IllegalTransition, PolicyBlocked with the reasons of each member, or Conflict while
    another promotion is running in one of the slots.
    """
    hold_off()  # so that no image can be quarantined between the check and the commit
    release_set, members = lock_set(actor, set_id, Verb.PROMOTION_EXECUTE)
    refuse_if(why_not_run_set(actor, release_set, members), state=release_set.state)
    slots = {row.pk: lock_slot(row.repository, row.environment) for row in members}
    judged = {row.pk: evaluate(row, RUNNING) for row in members}
    reasons = [f"{row.repository.name}: {why}" for row in members for why in judged[row.pk][0].reasons]
    if reasons:
        raise PolicyBlocked(f"{release_set} no longer meets all requirements.", reasons=reasons)
    if ReleaseSet.objects.filter(pk=release_set.pk, execute_by__lt=Now()).exists():
        raise IllegalTransition(f"The time to run {release_set} is over. Request it again.")
    busy = PromotionRequest.objects.filter(
        repository__in=[row.repository_id for row in members], environment=release_set.environment,
        state__in=MOVING_STATES,
    ).first()  # fmt: skip
    if busy is not None:
        raise Conflict(f"{busy} is running in this environment. Try again when it finishes.")
    if actor.kind == User.Kind.SYSTEM and (why := why_set_waits(release_set)):
        raise IllegalTransition(why)
    fences = {}
    for row in members:
        slot, evaluation = slots[row.pk], judged[row.pk][1]
        Slot.objects.filter(pk=slot.pk).update(fence=F("fence") + 1)
        fences[str(row.pk)] = slot.fence + 1
        move(row, MemberState.EXECUTING, executed_by=actor, failure="", attempts=row.attempts + 1)
        target = target_reference(row.environment, row.repository)
        details = PromotionExecuting(evaluation=evaluation.digest, fence=slot.fence + 1, target=target)
        record(Action.PROMOTION_EXECUTING, row, actor, details=details)
    move_set(release_set, State.EXECUTING, executed_by=actor, failure="", former={}, attempts=release_set.attempts + 1)
    release_states.record(Action.RELEASE_SET_EXECUTING, release_set, actor)
    jobs.queue(
        RELEASE,
        subject_id=release_set.pk,
        actor=actor,
        payload={"fences": fences, "run": release_set.attempts},
        priority=5,
        max_attempts=COPY_ATTEMPTS_MAX,
    )
    return release_set


def mark_sets_seen(actor: User, set_id: int | None = None) -> None:
    """Record that `actor` saw how their sets ended: one set, or all. No audit event: nothing else changes."""
    rows = unseen_sets_of(actor)
    rows = rows.filter(pk=set_id) if set_id is not None else rows
    ids = list(rows.values_list("pk", flat=True))
    if ids:
        ReleaseSet.objects.filter(pk__in=ids, seen_at=None).update(seen_at=clock.now())


def tend() -> None:
    """Expire and remind sets whose time is over or near, and move the end of ready ones behind closed windows."""
    for pk in ReleaseSet.objects.filter(state__in=LIVE).order_by("pk").values_list("pk", flat=True):
        with transaction.atomic():
            _tend(pk)


def _tend(set_id: int) -> None:
    rows = PromotionRequest.objects.select_related("image", "repository__team", "environment__team")
    locked = rows.select_for_update(of=("self",), skip_locked=True).filter(release_set=set_id).order_by("pk")
    members = list(locked)
    release_set = lock_row(set_id) if members else None
    if release_set is None or len(members) != release_set.size or release_set.state not in LIVE:
        return  # somebody acts on it now: the next pass looks again
    overdue = Q(state=State.OPEN, approve_by__lt=Now()) | Q(state=State.READY, execute_by__lt=Now())
    if not ReleaseSet.objects.filter(overdue, pk=set_id).exists():
        if release_set.state == State.READY:
            wait_for_window(release_set)
        _remind(release_set)
        return
    deadline = "approve_by" if release_set.state == State.OPEN else "execute_by"
    for row in members:
        move(row, MemberState.EXPIRED)
        record(Action.PROMOTION_EXPIRED, row, system_user(), reason=deadline)
    move_set(release_set, State.EXPIRED)
    release_states.record(Action.RELEASE_SET_EXPIRED, release_set, system_user(), reason=deadline)


def _remind(release_set: ReleaseSet) -> None:
    """Record once for each deadline that it is near."""
    is_open = release_set.state == State.OPEN
    deadline, start, what = (
        (release_set.approve_by, release_set.created_at, "approval")
        if is_open
        else (release_set.execute_by, release_set.decided_at, "run")
    )
    if deadline is None or start is None or release_set.reminded_of == what:
        return
    left = deadline - clock.now()
    if left <= min(REMIND_WITHIN, (deadline - start) / 4):
        release_set.reminded_of = what
        release_set.save(update_fields=["reminded_of"])
        details = PromotionReminded(deadline=what, due_at=deadline.isoformat())
        release_states.record(Action.RELEASE_SET_REMINDED, release_set, system_user(), details=details)


def run_sets(say: Callable[[ReleaseSet, str], None]) -> int:
    """Run the ready sets whose environment says so, and that nothing holds back. Returns how many were started."""
    rows = ReleaseSet.objects.filter(state=State.READY, environment__auto_execute=True, failure="")
    started = 0
    for release_set in rows.select_related("environment__team", "requested_by").order_by("decided_at", "pk")[:100]:
        if why_set_waits(release_set):
            continue
        try:
            execute(release_set.pk, actor=system_user())
            started += 1
        except (Conflict, IllegalTransition, PolicyBlocked) as error:  # the next pass decides
            say(release_set, error.message)
    return started
