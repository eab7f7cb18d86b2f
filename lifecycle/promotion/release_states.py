"""The states of release sets: what follows from their members. Callers have locked a member, or all of them.

The row of a set is always locked last, after its members in the order of their ids, so that nobody waits in a circle.
Who has locked one member writes no other: a vote may hold that one, and wait for this.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import Details
from lifecycle.audit.details_of_promotion import PromotionSuperseded
from lifecycle.core import clock
from lifecycle.core.states import move_row
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.promotion.opening import wait_for_window

State = ReleaseSet.State


def lock_row(set_id: int) -> ReleaseSet:
    """Return the row of a set, locked until the transaction ends."""
    rows = ReleaseSet.objects.select_related("environment__team", "requested_by", "executed_by")
    return rows.select_for_update(of=("self",)).get(pk=set_id)


def move_set(release_set: ReleaseSet, state: str, **changes: object) -> None:
    """Move a locked set to `state`; the only writer of its `state`. Raises IllegalTransition."""
    if state not in ReleaseSet.NEXT:
        changes["finished_at"] = clock.now()
    move_row(release_set, state, **changes)


def record(
    action: Action, release_set: ReleaseSet, actor: User, *, reason: str = "", details: Details | None = None
) -> None:
    """Append an audit event about the set, beside those about its members."""
    audit.record(
        action, actor=actor, subject=release_set, environment=release_set.environment, reason=reason, details=details
    )


def follow(member: PromotionRequest, *, why: str = "") -> None:
    """Make the set of a changed member ready when all members are, and open again when one is not, with the reason.

    Nothing happens for a request that is in no set.
    """
    if member.release_set_id is None:
        return
    release_set = lock_row(member.release_set_id)
    ready = PromotionRequest.objects.filter(release_set=release_set, state=PromotionRequest.State.READY)
    is_ready = ready.count() == release_set.size
    if release_set.state == State.OPEN and is_ready and not _is_too_late(release_set):
        moment = clock.now()
        execute_by = moment + timedelta(seconds=release_set.environment.execute_within_s)
        move_set(release_set, State.READY, decided_at=moment, execute_by=execute_by)
        record(Action.RELEASE_SET_READY, release_set, system_user())
        wait_for_window(release_set)
    elif release_set.state == State.READY and not is_ready:
        move_set(release_set, State.OPEN, decided_at=None, execute_by=None)
        reason = f"{member} ({member.repository.name}): {why}"
        record(Action.RELEASE_SET_REGRESSED, release_set, system_user(), reason=reason)


def _is_too_late(release_set: ReleaseSet) -> bool:
    """Return whether the time to approve the set is over, by the database's clock. It expires within a minute."""
    return ReleaseSet.objects.filter(pk=release_set.pk, approve_by__lt=Now()).exists()


def supersede(set_id: int, newer: str) -> None:
    """Record that `newer`, a rollback or break-glass, replaced the set. The caller has superseded all members."""
    release_set = lock_row(set_id)
    move_set(release_set, State.SUPERSEDED)
    details = PromotionSuperseded(newer=newer)
    record(Action.RELEASE_SET_SUPERSEDED, release_set, system_user(), details=details)


def revert(set_id: int, *, why: str, can_retry: bool) -> ReleaseSet:
    """Make a running set one that is put back, and return it. One that is put back already keeps its reason."""
    release_set = lock_row(set_id)
    if release_set.state == State.EXECUTING:
        move_set(release_set, State.REVERTING, failure=why[:2000], can_retry=can_retry)
        record(Action.RELEASE_SET_REVERTING, release_set, system_user(), reason=release_set.failure)
    elif release_set.state == State.REVERTING and not can_retry:
        release_set.can_retry = False
        release_set.save(update_fields=["can_retry"])
    return release_set
