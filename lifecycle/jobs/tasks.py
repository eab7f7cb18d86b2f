"""The only Celery task: a wake-up with a job's id. It can arrive twice or never."""

from __future__ import annotations

from celery import shared_task
from django.db import close_old_connections

from lifecycle.jobs import running
from lifecycle.jobs.kinds import WAKE_UP


@shared_task(
    name=WAKE_UP,
    # Acknowledged when a worker takes it. The lease in the row shows whether the work continues, so a message that is
    # delivered again would find the row claimed. With late acknowledgement, a lost connection to the broker would end
    # the running work (adr/0002).
    acks_late=False,
    ignore_result=True,  # the job row is the result
)
def run_job(job_id: int) -> None:
    """Claim the job and run it, or return when it cannot be claimed."""
    close_old_connections()
    running.run(job_id)
