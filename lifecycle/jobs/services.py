"""Queue, claim, renew, finish and sweep jobs. The rows store all state; Celery messages contain only ids."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from celery import current_app
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from accounts.models import User
from lifecycle.core.errors import DiskFull, LeaseLost, RegistryUnavailable
from lifecycle.core.states import check_move
from lifecycle.jobs import broker
from lifecycle.jobs.kinds import WAKE_UP, Kind, all_kinds, gave_up, kind_called, kinds_in
from lifecycle.jobs.models import Job, JobLogLine

log = structlog.get_logger(__name__)

RETRY_AFTER_S: Final = (2, 5, 15, 60, 300)  # by attempt; the last value repeats
TRANSIENT_CODES: Final = frozenset(
    {RegistryUnavailable.code, DiskFull.code, "database_unavailable", "crashed", "attempts_used"}
)
LOG_LINE_MAX: Final = 2000  # characters
BROKER_PAUSE_S: Final = 2.0
QUEUE_ENOUGH: Final = 100  # wake-ups in a queue


class _Broker:
    """Whether the last use of the broker failed. It needs no lock, because a lost wake-up does no harm."""

    away_until = 0.0  # on the monotonic clock


_broker: Final = _Broker()


def queue(
    kind: Kind,
    *,
    subject_id: int,
    actor: User,
    payload: dict[str, Any] | None = None,
    priority: int = 0,
    dedupe_key: str = "",
    not_before: datetime | None = None,
    max_attempts: int = 5,
) -> Job:
    """Add a job in the caller's transaction. A wake-up is sent after the commit.

    With a `dedupe_key`, returns the waiting job of that kind and key, if any, instead of adding a second one. A lost
    wake-up does no harm: the sweep finds the row.
    """
    with transaction.atomic():
        job = None
        try:
            with transaction.atomic():
                job = Job.objects.create(
                    kind=kind.name,
                    subject_id=subject_id,
                    actor=actor,
                    payload=payload or {},
                    priority=priority,
                    dedupe_key=dedupe_key,
                    not_before=not_before,
                    max_attempts=max_attempts,
                )
        except IntegrityError:
            if not dedupe_key:
                raise
            # With FOR UPDATE, no worker can claim this row before our transaction ends, so the worker that claims it
            # reads our changes. If a worker has already claimed it, we need a new job.
            job = (
                Job.objects.select_for_update()
                .filter(kind=kind.name, dedupe_key=dedupe_key, state=Job.State.WAITING)
                .first()
            )
            if job is None:  # claimed meanwhile: that worker may not see our changes
                return queue(
                    kind,
                    subject_id=subject_id,
                    actor=actor,
                    payload=payload,
                    priority=priority,
                    dedupe_key=dedupe_key,
                    not_before=not_before,
                    max_attempts=max_attempts,
                )
        job_id, queue_name = job.pk, kind.queue
        if not_before is None:
            transaction.on_commit(lambda: wake(job_id, queue_name))
    return job


def queue_again(job: Job) -> Job:
    """Queue a copy of a finished job for the same user, and return the copy. The old job is not changed."""
    return queue(
        kind_called(job.kind),
        subject_id=job.subject_id,
        actor=job.actor,
        payload=job.payload,
        priority=job.priority,
        dedupe_key=job.dedupe_key or f"retry:{job.pk}",
        max_attempts=job.max_attempts,
    )


def wake(job_id: int, queue_name: str) -> None:
    """Send the wake-up of one job. When the broker is away, log that; the sweep sends the wake-up later.

    After a failure, no wake-up is sent for BROKER_PAUSE_S, so that a caller with many jobs does not wait for each one.
    """
    if time.monotonic() < _broker.away_until:
        return
    try:
        current_app.send_task(WAKE_UP, (job_id,), queue=queue_name, retry=False)
    except Exception as error:  # noqa: BLE001 -- the row is stored, whatever the broker's client raises
        _broker.away_until = time.monotonic() + BROKER_PAUSE_S
        log.warning("wake_up_not_sent", job_id=job_id, error=type(error).__name__)


def claim(job_id: int, *, worker: str) -> Job | None:
    """Return the job, now running with a new lease and fence, or None when it cannot be claimed.

    A job can be claimed when it waits and is due, or when its lease has expired. The row lock lets only one of many
    workers claim it, and SKIP LOCKED keeps the others from waiting.
    """
    with transaction.atomic():
        due = Q(state=Job.State.WAITING) & (Q(not_before=None) | Q(not_before__lte=Now()))
        dead = Q(state=Job.State.RUNNING, lease_until__lt=Now())
        job = Job.objects.select_for_update(skip_locked=True, of=("self",)).filter(due | dead, pk=job_id).first()
        if job is None:
            return None
        if job.attempts >= job.max_attempts:
            finish(job, Job.State.FAILED, "attempts_used", job.last_error or "The worker died in every attempt.")
            gave_up(job)
            return None
        Job.objects.filter(pk=job.pk).update(
            state=Job.State.RUNNING,
            fence=F("fence") + 1,
            attempts=F("attempts") + 1,
            lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_S),
            worker=worker[:120],
            started_at=Now(),
            not_before=None,
        )
        job.refresh_from_db()
        return job


def renew(job: Job) -> None:
    """Extend the lease of a job that this worker holds; raises LeaseLost when it no longer holds it."""
    if not extend_lease(job):
        raise LeaseLost("Another worker holds this job, or it was cancelled.", job=job.pk)


def extend_lease(job: Job) -> bool:
    """Extend the lease of a job that this worker holds, and return whether it still holds it.

    Call it at the end of a transaction that locks the row, to replace the heartbeats that waited for that lock.
    """
    rows = Job.objects.filter(pk=job.pk, fence=job.fence, state=Job.State.RUNNING)
    return bool(rows.update(lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_S)))


def lock_held(job: Job) -> Job:
    """Return the job's row, locked, if this worker still holds it; else raises LeaseLost.

    Call it first in the transaction that writes the result. A worker that lost its lease then changes nothing.
    """
    row = Job.objects.select_for_update().filter(pk=job.pk, fence=job.fence, state=Job.State.RUNNING).first()
    if row is None:
        raise LeaseLost("Another worker holds this job, or it was cancelled.", job=job.pk)
    return row


def report_progress(job: Job, done: int, total: int | None, text: str) -> None:
    """Store the progress of a held job; raises LeaseLost."""
    rows = Job.objects.filter(pk=job.pk, fence=job.fence, state=Job.State.RUNNING)
    if not rows.update(progress_done=done, progress_total=total, progress_text=text[:300]):
        raise LeaseLost("Another worker holds this job, or it was cancelled.", job=job.pk)


def append_log(job: Job, text: str) -> None:
    """Add lines to the job's log, without control characters."""
    lines = ["".join(c for c in line if c.isprintable() or c == "\t")[:LOG_LINE_MAX] for line in text.splitlines()]
    JobLogLine.objects.bulk_create([JobLogLine(job=job, text=line) for line in lines if line.strip()])


@transaction.atomic
def succeed(job: Job) -> None:
    """Mark a held job as succeeded; raises LeaseLost."""
    finish(lock_held(job), Job.State.SUCCEEDED, "", "")


@transaction.atomic
def fail(job: Job, *, code: str, message: str, is_transient: bool, retry_after_s: float | None = None) -> bool:
    """Record a failed attempt of a held job, and return whether the job itself failed.

    When the failure is transient and attempts are left, the job waits and is retried. Raises LeaseLost.
    """
    row = lock_held(job)
    if is_transient and row.attempts < row.max_attempts:
        default_s = RETRY_AFTER_S[min(row.attempts, len(RETRY_AFTER_S)) - 1]
        _release(row, timedelta(seconds=default_s if retry_after_s is None else retry_after_s), code, message)
        return False
    finish(row, Job.State.FAILED, code, message)
    return True


@transaction.atomic
def postpone(job: Job, *, seconds: float, why: str) -> None:
    """Release a held job that waits for something, without counting the attempt; raises LeaseLost."""
    row = lock_held(job)
    row.attempts -= 1
    _release(row, timedelta(seconds=seconds), "", why)


def _release(row: Job, delay: timedelta, code: str, message: str) -> None:
    check_move(row, Job.State.WAITING)
    row.state = Job.State.WAITING
    row.lease_until = None
    row.dedupe_key = ""  # a newer job with the same key may already wait
    row.error_code, row.last_error = code, message[:4000]
    row.save(update_fields=["state", "lease_until", "dedupe_key", "attempts", "error_code", "last_error"])
    Job.objects.filter(pk=row.pk).update(not_before=Now() + delay)


def finish(row: Job, state: str, code: str, message: str) -> None:
    """Move a locked job to a final state; raises IllegalTransition."""
    check_move(row, state)
    row.state, row.lease_until, row.error_code, row.last_error = state, None, code, message[:4000]
    # One statement: the database rejects a final state without finished_at.
    Job.objects.filter(pk=row.pk).update(
        state=row.state, lease_until=None, error_code=row.error_code, last_error=row.last_error, finished_at=Now()
    )


def sweep(*, limit: int = 500) -> int:
    """Send a wake-up for each due job and each job with an expired lease, if the sweep sent none lately.

    Returns the number of wake-ups. Any number of tickers can run it, because a second wake-up finds the row claimed and
    stops. A queue with QUEUE_ENOUGH wake-ups gets no more: its workers are behind, and each extra one costs a query.
    """
    lengths = broker.waiting(kind.queue for kind in all_kinds())
    behind = kinds_in([queue for queue, length in lengths.items() if length >= QUEUE_ENOUGH])
    stale = Q(hinted_at=None) | Q(hinted_at__lt=Now() - timedelta(seconds=settings.JOB_SWEEP_S))
    due = Q(state=Job.State.WAITING) & (Q(not_before=None) | Q(not_before__lte=Now()))
    dead = Q(state=Job.State.RUNNING, lease_until__lt=Now())
    # The wake-up of a job from the last second is still on its way.
    fresh = Q(state=Job.State.WAITING, created_at__gt=Now() - timedelta(seconds=1), hinted_at=None, not_before=None)
    with transaction.atomic():
        rows = list(
            Job.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(stale & (due | dead))
            .exclude(fresh)
            .exclude(kind__in=behind)
            .order_by("-priority", "id")
            .values_list("pk", "kind")[:limit]
        )
        Job.objects.filter(pk__in=[pk for pk, _ in rows]).update(hinted_at=Now())
    for pk, kind in rows:
        wake(pk, kind_called(kind).queue)
    return len(rows)
