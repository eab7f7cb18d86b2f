"""The handlers of the jobs and events of this package, and its scheduled tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lifecycle import events
from lifecycle.core import clock
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.notices import access_requests, accounts, quarantines
from lifecycle.notices.kinds import NOTIFY, TELL_QUARANTINE
from lifecycle.notices.messages import deliver, give_up
from lifecycle.notices.models import Message, Notice
from lifecycle.notices.sending import prepare

KEEP_NOTICES: Final = timedelta(days=180)
KEEP_MESSAGES: Final = timedelta(days=30)


def _gave_up(job: Job) -> None:
    give_up(job.subject_id, job.last_error or "It was cancelled.")


@handler(NOTIFY, gave_up=_gave_up)
def notify(run: JobRun) -> None:
    """Send one message. It is tried again for a day; the row has the state, so twice is safe."""
    pause = deliver(run.job.subject_id, prepare)
    if pause is not None:
        raise Postponed("The message is tried again later.", seconds=pause.total_seconds())


@handler(TELL_QUARANTINE)
def tell_quarantine(run: JobRun) -> None:
    """Tell those whom a quarantine concerns that it begins, or was lifted. Each notice has a key, so twice is safe."""
    with run.fenced():
        if run.job.payload["begins"]:
            quarantines.tell_begin(run.job.subject_id)
        else:
            quarantines.tell_lifted(run.job.subject_id)


@subscribe(events.AuditRecorded)
def tell_people(event: events.AuditRecorded) -> None:
    """Tell people about quarantines, and about changes of how they sign in."""
    quarantines.tell_about_quarantine(event)
    accounts.tell_about_account(event)
    access_requests.tell_about_access(event)


@every(3600, "notices_tidy")
def tidy() -> None:
    """Delete old notices and messages. The audit log still has what they told."""
    now = clock.now()
    Message.objects.filter(created_at__lt=now - KEEP_MESSAGES).delete()
    Notice.objects.filter(at__lt=now - KEEP_NOTICES).delete()
