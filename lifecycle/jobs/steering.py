"""Cancel and retry jobs on behalf of users, and the reasons why a job cannot be cancelled or retried."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import JobCancelled, JobRetried, JobState
from lifecycle.core.errors import IllegalTransition
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.jobs import services
from lifecycle.jobs.access import lock_job
from lifecycle.jobs.kinds import gave_up, kind_called
from lifecycle.jobs.models import Job


def why_not_cancelled(job: Job) -> Reason | None:
    """Return the reason why the job cannot be cancelled now, or None when it can."""
    if job.is_final:
        return Reason(f"The job is already {job.state}.", IllegalTransition)
    return _reason(kind_called(job.kind).why_not_cancelled)


def why_not_retried(job: Job) -> Reason | None:
    """Return the reason why the job cannot be retried, or None when it can."""
    if job.state not in {Job.State.FAILED, Job.State.CANCELLED}:
        return Reason("Only failed or cancelled jobs can be retried.", IllegalTransition)
    return _reason(kind_called(job.kind).why_not_retried)


def _reason(text: str) -> Reason | None:
    return Reason(text, IllegalTransition) if text else None


@transaction.atomic
def cancel(job_id: int, *, actor: User) -> Job:
    """Cancel a waiting or running job. Its worker can commit nothing from now on, and stops at the next lease renewal.

    Raises NotFound, or IllegalTransition with the reason.
    """
    job = lock_job(actor, job_id)
    refuse_if(why_not_cancelled(job))
    before = job.state
    services.finish(job, Job.State.CANCELLED, "cancelled", f"Cancelled by {actor}.")
    gave_up(job)
    details = JobCancelled(kind=job.kind, before=JobState(state=before))
    audit.record(Action.JOB_CANCELLED, actor=actor, subject=job, details=details)
    return job


@transaction.atomic
def retry(job_id: int, *, actor: User) -> Job:
    """Queue a copy of a failed or cancelled job for the same user, and return the copy. The old job is not changed.

    Raises NotFound, or IllegalTransition with the reason.
    """
    job = lock_job(actor, job_id)
    refuse_if(why_not_retried(job))
    new_job = services.queue_again(job)
    audit.record(Action.JOB_RETRIED, actor=actor, subject=job, details=JobRetried(kind=job.kind, again=new_job.pk))
    return new_job
