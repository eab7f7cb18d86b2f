"""Periodic work. Each due time is a row, so it runs once however many tickers there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models.functions import Now

from lifecycle.jobs import services
from lifecycle.jobs.kinds import all_kinds
from lifecycle.jobs.models import Job, JobLogLine, ScheduleSlot

log = structlog.get_logger(__name__)

KEEP_DONE_JOBS: Final = timedelta(days=30)
_AGAIN_AFTER_S: Final = (300, 900, *[3600] * 24, 86_400)  # by failures in a row; the last one repeats
_AGAIN_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class Schedule:
    """`action` is due once in every `period_s` seconds. After missed slots it runs once, not once for each."""

    name: str
    period_s: int
    action: Callable[[], None]


_SCHEDULES: Final[list[Schedule]] = []


def every(period_s: int, name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated function to be due every `period_s` seconds."""

    def register(action: Callable[[], None]) -> Callable[[], None]:
        _SCHEDULES.append(Schedule(name, period_s, action))
        return action

    return register


def run_due(now_s: float | None = None) -> list[str]:
    """Run the due schedules that no other ticker has taken, and return the names of those that ran here.

    When a schedule fails, its slot stays free and the other schedules still run.
    """
    moment = time.time() if now_s is None else now_s
    ran = []
    for schedule in _SCHEDULES:
        slot = int(moment // schedule.period_s)
        try:
            with transaction.atomic():
                if _take_slot(schedule.name, slot):
                    schedule.action()
                    ran.append(schedule.name)
        except (OperationalError, InterfaceError):
            raise  # the database is not available, so the other schedules would fail too
        except Exception:
            log.exception("schedule_failed", schedule=schedule.name)
    return ran


def _take_slot(name: str, slot: int) -> bool:
    """Return whether this ticker took the slot first. The inserted row decides, not the clock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO lifecycle_scheduleslot (schedule, slot, at) VALUES (%s, %s, now()) ON CONFLICT DO NOTHING",
            (name, slot),
        )
        return bool(cursor.rowcount == 1)


@every(3600, "tidy")
def tidy() -> None:
    """Delete old slots, and jobs that finished long ago with their logs. The audit log still has their effects."""
    old = Now() - KEEP_DONE_JOBS
    ScheduleSlot.objects.filter(at__lt=old).delete()
    done = Job.objects.filter(finished_at__lt=old)
    JobLogLine.objects.filter(job__in=done).delete()
    done.delete()


# Selects failed jobs that are the latest of their kind, subject and payload, and whose pause is over. The pause depends
# on the number of failures in a row.
_FORGOTTEN: Final = """
SELECT job.id
FROM lifecycle_job job
CROSS JOIN LATERAL (
    SELECT count(*) AS count FROM lifecycle_job before
    WHERE (before.kind, before.subject_id, before.payload) = (job.kind, job.subject_id, job.payload)
      AND before.state = 'failed' AND before.id <= job.id AND before.id > (
          SELECT coalesce(max(good.id), 0) FROM lifecycle_job good
          WHERE (good.kind, good.subject_id, good.payload) = (job.kind, job.subject_id, job.payload)
            AND good.state = 'succeeded' AND good.id < job.id)
) failures
WHERE job.state = 'failed' AND job.kind = ANY(%(kinds)s) AND job.error_code = ANY(%(codes)s)
  AND job.finished_at < now() - make_interval(secs => (%(after_s)s)[least(failures.count, %(steps)s)])
  AND NOT EXISTS (
      SELECT FROM lifecycle_job newer
      WHERE (newer.kind, newer.subject_id, newer.payload) = (job.kind, job.subject_id, job.payload)
        AND newer.id > job.id)
ORDER BY job.finished_at
LIMIT %(limit)s
"""


@every(60, "again")
def queue_again() -> None:
    """Queue jobs again that failed for a transient reason, without a limit, after pauses that grow to a day.

    The attempts of one job end within two minutes. Without this schedule, work that failed in a longer outage would
    never be done.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _FORGOTTEN,
            {
                "kinds": [kind.name for kind in all_kinds() if kind.is_retried_forever],
                "codes": sorted(services.TRANSIENT_CODES),
                "after_s": list(_AGAIN_AFTER_S),
                "steps": len(_AGAIN_AFTER_S),
                "limit": _AGAIN_LIMIT,
            },
        )
        ids = [row[0] for row in cursor.fetchall()]
    for job in Job.objects.select_related("actor").filter(pk__in=ids).order_by("pk"):
        new_job = services.queue_again(job)
        log.info("job_queued_again", failed_id=job.pk, job_id=new_job.pk, job_kind=job.kind)
