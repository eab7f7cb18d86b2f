"""Access checks: the only functions that turn the id in a request into a job."""

from __future__ import annotations

from accounts.models import User
from lifecycle.core.errors import NotFound
from lifecycle.jobs.models import Job
from lifecycle.jobs.queries import jobs_visible_to


def job_for(actor: User, job_id: int) -> Job:
    """Return the job if `actor` can see it; raises NotFound both for an absent and for a hidden job."""
    job = jobs_visible_to(actor).filter(pk=job_id).first()
    if job is None:
        raise NotFound("Job not found, or you don't have access.")
    return job


def lock_job(actor: User, job_id: int) -> Job:
    """Return the job if `actor` can cancel or retry it, with its row locked until the transaction ends.

    Raises NotFound. Only its actor and admins can see a job, and all of them can cancel or retry it.
    """
    job = jobs_visible_to(actor).select_for_update(of=("self",)).filter(pk=job_id).first()
    if job is None:
        raise NotFound("Job not found, or you don't have access.")
    return job
