"""What happens by the clock: slots are rows, so any number of tickers fire each of them once (security.md F23)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models.functions import Now

from lifecycle.jobs.models import Job, JobLogLine, ScheduleSlot

log = structlog.get_logger(__name__)

KEEP_DONE_JOBS: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`action` is due once in every `period_s` seconds; a missed slot is caught up once, not once for each."""

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
    """Run what is due and not yet taken by another ticker; returns the names of what ran here.

    One that fails leaves its slot to be taken again, and holds up none of the others.
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
            raise  # the database is away, for the others too
        except Exception:
            log.exception("schedule_failed", schedule=schedule.name)
    return ran


def _take_slot(name: str, slot: int) -> bool:
    """Return whether this ticker is the first to come for the slot; the row decides, not the clock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO lifecycle_scheduleslot (schedule, slot, at) VALUES (%s, %s, now()) ON CONFLICT DO NOTHING",
            (name, slot),
        )
        return bool(cursor.rowcount == 1)


@every(3600, "tidy")
def tidy() -> None:
    """Delete slots, and jobs that ended long ago with their logs; what they did is in the audit trail."""
    old = Now() - KEEP_DONE_JOBS
    ScheduleSlot.objects.filter(at__lt=old).delete()
    done = Job.objects.filter(finished_at__lt=old)
    JobLogLine.objects.filter(job__in=done).delete()
    done.delete()
