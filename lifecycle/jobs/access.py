"""The only way from an id in a request to a job's row: found and allowed, or not found."""

from __future__ import annotations

from accounts.models import User
from lifecycle.core.errors import NotFound
from lifecycle.jobs.models import Job
from lifecycle.jobs.queries import jobs_visible_to


def job_for(actor: User, job_id: int) -> Job:
    """Return the job if `actor` may see it; raises NotFound for absent and hidden alike."""
    job = jobs_visible_to(actor).filter(pk=job_id).first()
    if job is None:
        raise NotFound("There is no such job, or you may not see it.")
    return job


def lock_job(actor: User, job_id: int) -> Job:
    """Return the job, its row locked until the transaction ends, if `actor` may steer it; raises NotFound.

    Who sees a job is its actor or an admin, and may steer it.
    """
    job = jobs_visible_to(actor).select_for_update(of=("self",)).filter(pk=job_id).first()
    if job is None:
        raise NotFound("There is no such job, or you may not see it.")
    return job
