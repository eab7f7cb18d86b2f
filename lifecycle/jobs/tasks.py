"""The one Celery task: a wake-up that carries a job's id. It may come twice or never."""

from __future__ import annotations

from celery import shared_task
from django.db import close_old_connections

from lifecycle.jobs import running
from lifecycle.jobs.kinds import WAKE_UP


@shared_task(
    name=WAKE_UP,
    # Acknowledged when a worker takes it: the row's lease says whether the work goes on, so a message delivered again
    # would find the row claimed, and a broker that went away would end the work it was acknowledged for (adr/0002).
    acks_late=False,
    ignore_result=True,  # the job row is the result
)
def run_job(job_id: int) -> None:
    """Claim the job's row, or stop."""
    close_old_connections()
    running.run(job_id)
