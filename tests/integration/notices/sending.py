"""Send what waits, as workers do."""

from __future__ import annotations

from datetime import timedelta

from lifecycle.core import clock
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.notices.models import Message


def send() -> None:
    """Run the NOTIFY jobs once, as if their time had come."""
    Message.objects.filter(state__in=("waiting", "retrying")).update(due_at=clock.now() - timedelta(seconds=1))
    for job in Job.objects.filter(kind="notify", state="waiting").order_by("pk"):
        Job.objects.filter(pk=job.pk).update(not_before=None)
        running.run(job.pk)
