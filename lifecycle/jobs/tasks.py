"""The one Celery task: a wake-up that carries a job's id. It may come twice or never."""

from __future__ import annotations

from celery import shared_task
from django.db import close_old_connections


@shared_task(
    name="gravingdock.run_job",
    acks_late=True,  # acknowledged when done, and ...
    reject_on_worker_lost=True,  # ... delivered again if the worker is killed
    ignore_result=True,  # the job row is the result
)
def run_job(job_id: int) -> None:
    """Claim the job's row, or stop."""
    from lifecycle.jobs import running  # noqa: PLC0415 -- leaf: services import tasks

    close_old_connections()
    running.run(job_id)
