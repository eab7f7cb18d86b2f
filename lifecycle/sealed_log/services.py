"""Actions on anchors, and what runs by the clock."""

from __future__ import annotations

import re
import time
from typing import Final

from django.db import IntegrityError, transaction

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_log import AnchorDetails
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, LifecycleError, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun
from lifecycle.sealed_log import anchoring
from lifecycle.sealed_log.checking import check_log
from lifecycle.sealed_log.constants import ANCHOR_EVERY, ANCHORS_MAX
from lifecycle.sealed_log.kinds import ANCHOR, CHECK_LOG
from lifecycle.sealed_log.models import Anchor, LogCheck
from lifecycle.sealed_log.queries import current_origin, last_checkpoint

_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def why_not_manage_anchors(actor: User) -> Reason | None:
    """Return why `actor` cannot add or remove anchors; None when they can."""
    if actor.is_active and actor.is_superuser:
        return None
    return Reason("Only an admin can manage anchors. Ask an admin.")


@transaction.atomic
def add_anchor(name: str, kind: str, target: str, *, actor: User) -> Anchor:
    """Add an anchor, and queue its first copy. Raises NotPermitted, Malformed or Conflict."""
    refuse_if(why_not_manage_anchors(actor))
    if len(name) > 60 or not _NAME.fullmatch(name):
        raise Malformed("name: use lower-case letters, digits and single hyphens.", field="name")
    if kind not in Anchor.Kind.values:
        raise Malformed(f"kind: choose one of {', '.join(Anchor.Kind.values)}.", field="kind")
    target = anchoring.checked_target(kind, target.strip())
    if Anchor.objects.count() >= ANCHORS_MAX:
        raise Conflict(f"There are {ANCHORS_MAX} anchors already. Remove one first.")
    try:
        with transaction.atomic():
            row = Anchor.objects.create(name=name, kind=kind, target=target, created_by=actor)
    except IntegrityError:
        raise Conflict("There is already an anchor with this name. Choose another name.") from None
    details = AnchorDetails(anchor=name, kind=kind, target=target)
    audit.record(Action.AUDIT_ANCHOR_ADDED, actor=actor, subject=row, details=details)
    jobs.queue(ANCHOR, subject_id=row.pk, actor=actor, dedupe_key=str(row.pk))
    return row


@transaction.atomic
def remove_anchor(anchor_id: int, *, actor: User) -> None:
    """Remove an anchor. What it has got stays there. Raises NotPermitted, NotFound, or Conflict for the last one."""
    refuse_if(why_not_manage_anchors(actor))
    rows = list(Anchor.objects.select_for_update().order_by("pk"))
    row = next((row for row in rows if row.pk == anchor_id), None)
    if row is None:
        raise NotFound("There is no such anchor.")
    if len(rows) == 1:
        raise Conflict("This is the last anchor. Add another one first.")
    details = AnchorDetails(anchor=row.name, kind=row.kind, target=row.target)
    audit.record(Action.AUDIT_ANCHOR_REMOVED, actor=actor, subject=row, details=details)
    row.delete()


def queue_anchors() -> int:
    """Queue a copy for each anchor that lacks the last checkpoint, at most one in ANCHOR_EVERY; return how many."""
    origin = current_origin()
    checkpoint = last_checkpoint(origin) if origin is not None else None
    if checkpoint is None:
        return 0
    count = 0
    for row in Anchor.objects.order_by("pk"):
        is_current = (row.origin, row.size) == (checkpoint.origin.name, checkpoint.size)
        is_early = row.anchored_at is not None and clock.now() - row.anchored_at < ANCHOR_EVERY
        if not is_current and not is_early:
            jobs.queue(ANCHOR, subject_id=row.pk, actor=system_user(), dedupe_key=str(row.pk))
            count += 1
    return count


def run_anchor(run: JobRun) -> None:
    """Copy the last checkpoint to the anchor of a job, and note what came of it. Raises what `anchor` raises."""
    row = Anchor.objects.filter(pk=run.job.subject_id).first()
    origin = current_origin()
    checkpoint = last_checkpoint(origin) if origin is not None else None
    if row is None or checkpoint is None:
        return  # removed meanwhile, or nothing is sealed yet
    run.check()
    try:
        anchoring.anchor(row, checkpoint)
    except (LifecycleError, OSError) as error:
        problem = error.message if isinstance(error, LifecycleError) else f"{error.strerror or error}"
        with run.fenced():
            Anchor.objects.filter(pk=row.pk).update(problem=problem[:300])
        raise
    with run.fenced():
        Anchor.objects.filter(pk=row.pk).update(
            origin=checkpoint.origin.name, size=checkpoint.size, anchored_at=clock.now(), problem=""
        )


def queue_check() -> None:
    """Queue the check of the whole log, unless one waits."""
    if current_origin() is not None:
        jobs.queue(CHECK_LOG, subject_id=0, actor=system_user(), dedupe_key="all")


def run_check(run: JobRun) -> None:
    """Derive the whole log again, and note what is wrong first."""
    started = time.monotonic()

    def alive(count: int) -> None:
        run.progress(count)

    count, found = check_log(alive=alive)
    with run.fenced():
        LogCheck.objects.create(
            entries=count, seconds=time.monotonic() - started, problem=str(found)[:400] if found is not None else ""
        )
