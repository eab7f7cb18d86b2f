"""How the run of a release set is recorded. The caller holds the fence of its job; nothing here uses the network.

A job names its `run` of the set, so that a late one changes nothing in the next run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from django.db import transaction

from accounts.queries import system_user
from lifecycle.audit.actions import Action
from lifecycle.audit.details import TagDetails
from lifecycle.core import clock
from lifecycle.core.errors import Conflict
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import Slot
from lifecycle.jobs import services as jobs
from lifecycle.promotion import release_states
from lifecycle.promotion.evaluating import move, record
from lifecycle.promotion.kinds import RELEASE
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.promotion.queries import MOVING_STATES
from lifecycle.promotion.release_sets import lock_members
from lifecycle.promotion.release_states import lock_row, move_set, revert
from lifecycle.promotion.services import COPY_ATTEMPTS_MAX, EXECUTIONS_MAX, fill_slot
from lifecycle.quarantine.queries import covers_of
from lifecycle.quarantine.services import hold_off
from lifecycle.quarantine.types import Quarantined

State, MemberState = ReleaseSet.State, PromotionRequest.State
PUT_BACK_AGAIN_AFTER: Final = timedelta(minutes=1)
Former = Mapping[str, Mapping[str, str | None]]  # as ReleaseSet.former


def holds_slots(members: Sequence[PromotionRequest], fences: Mapping[str, int]) -> bool:
    """Return whether the job with these fences still holds the slot of each of these members. One query."""
    slots = Slot.objects.filter(
        environment=members[0].environment_id, repository__in=[row.repository_id for row in members]
    )
    now = dict(slots.values_list("repository", "fence"))
    return all(now.get(row.repository_id) == fences[str(row.pk)] for row in members)


def is_of_run(release_set: ReleaseSet, run: int | None) -> bool:
    """Return whether the set was not run again since its run with this number. None is any run."""
    return run is None or release_set.attempts == run


def why_any_quarantined(members: Sequence[PromotionRequest]) -> Reason | None:
    """Return which member a quarantine covers, and why; None when none is covered. One query."""
    covers = covers_of([row.image_id for row in members])
    for row in members:
        if found := covers.get(row.image_id):
            return Reason(f"{row.repository.name}: {' '.join(cover.words for cover in found)}", Quarantined)
    return None


@transaction.atomic
def begin_tags(set_id: int, former: Former, *, run: int | None = None) -> Former:
    """Record that all copies are complete, and what the tags pointed to, before the first of them moves.

    Returns what an earlier attempt recorded, if it did: it may have moved tags since. Raises Conflict when the set is
    not running any more, Quarantined when a member was quarantined during the copy.
    """
    hold_off()
    members = lock_members(ReleaseSet(pk=set_id))
    release_set = lock_row(set_id)
    if release_set.state != State.EXECUTING or not is_of_run(release_set, run):
        raise Conflict(f"{release_set} is {release_set.state}, in run {release_set.attempts}.")
    refuse_if(why_any_quarantined(members))
    for row in members:
        if row.state == MemberState.EXECUTING:  # an earlier attempt may already have done this
            move(row, MemberState.VERIFYING)
            record(Action.PROMOTION_VERIFYING, row, row.executed_by or system_user())
    if not release_set.former:
        release_set.former = dict(former)
        release_set.save(update_fields=["former"])
    recorded: Former = release_set.former
    return recorded


@transaction.atomic
def succeed(set_id: int, *, run: int | None = None) -> None:
    """Record that every target holds its approved digest: members, slots and set in one transaction.

    Raises Conflict when a rollback or break-glass took the place of a member meanwhile, Quarantined when a member was
    quarantined.
    """
    hold_off()
    members = lock_members(ReleaseSet(pk=set_id))
    release_set = lock_row(set_id)
    if release_set.state != State.EXECUTING or not is_of_run(release_set, run):
        raise Conflict(f"{release_set} is {release_set.state}, in run {release_set.attempts}.")
    refuse_if(why_any_quarantined(members))
    for row in members:
        fill_slot(row)
        move(row, MemberState.SUCCEEDED)
        actor = row.executed_by or system_user()
        record(Action.PROMOTION_SUCCEEDED, row, actor, details=TagDetails(tag=row.tag))
    move_set(release_set, State.SUCCEEDED)
    release_states.record(Action.RELEASE_SET_SUCCEEDED, release_set, release_set.executed_by or system_user())


@transaction.atomic
def begin_reverting(set_id: int, *, why: str, can_retry: bool, run: int | None = None) -> ReleaseSet:
    """Record that the run failed, and that what it changed must be put back. Nothing, when it ended already."""
    lock_members(ReleaseSet(pk=set_id))
    release_set = lock_row(set_id)
    if not is_of_run(release_set, run):
        return release_set
    return revert(set_id, why=why, can_retry=can_retry)


@transaction.atomic
def end_reverting(set_id: int, *, problems: Sequence[str] = (), run: int | None = None) -> None:
    """Record that all targets hold what they held before, but for `problems`. Slots keep their images.

    After a technical failure the set and its members return to ready, with the reason, while runs are left. The votes
    still count. Any other failure is final.
    """
    members = lock_members(ReleaseSet(pk=set_id))
    release_set = lock_row(set_id)
    if release_set.state != State.REVERTING or not is_of_run(release_set, run):
        return
    why = " ".join([release_set.failure, *problems])[:2000]
    moving = [row for row in members if row.state in MOVING_STATES]  # not one whose place something took
    is_ready = release_set.can_retry and not problems and len(moving) == len(members)
    is_ready = is_ready and release_set.attempts < EXECUTIONS_MAX
    for row in moving:
        move(row, MemberState.READY if is_ready else MemberState.FAILED, failure=why)
        if is_ready:
            record(Action.PROMOTION_ATTEMPT_FAILED, row, system_user(), reason=why)
        else:
            record(Action.PROMOTION_FAILED, row, system_user(), reason=why)
    move_set(release_set, State.READY if is_ready else State.FAILED, failure=why, former={})
    if is_ready:
        release_states.record(Action.RELEASE_SET_ATTEMPT_FAILED, release_set, system_user(), reason=why)
    else:
        release_states.record(Action.RELEASE_SET_FAILED, release_set, system_user(), reason=why)


def give_up(set_id: int, *, why: str, can_retry: bool, payload: Mapping[str, Any]) -> None:
    """Record that a job ended without a result. What it changed is put back by another job, until that succeeds."""
    run = payload.get("run")
    release_set = begin_reverting(set_id, why=why, can_retry=can_retry, run=run)
    if release_set.state != State.REVERTING or not is_of_run(release_set, run):
        return
    if not release_set.former:  # no tag was moved
        end_reverting(set_id, run=run)
        return
    jobs.queue(
        RELEASE,
        subject_id=set_id,
        actor=system_user(),
        payload=dict(payload),
        priority=5,
        not_before=clock.now() + PUT_BACK_AGAIN_AFTER if payload.get("is_again") else None,
        max_attempts=COPY_ATTEMPTS_MAX,
    )
