"""What people may do to a job: stop it, or ask for it again. Where neither makes sense, the sentence that says so."""

from __future__ import annotations

from typing import Final

from django.db import transaction
from django.db.models.functions import Now

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.core.errors import IllegalTransition
from lifecycle.jobs import handlers, services
from lifecycle.jobs.access import lock_job
from lifecycle.jobs.models import Job, JobKind

# Stopping these leaves nothing half known: the crawl finds what one delivery or crawl missed, a scan that did not end
# is said on its image, and a plan is made again. An unmatched package or a missing derivation would be found by nobody.
_CANCELLABLE: Final = frozenset({JobKind.INGEST, JobKind.CRAWL, JobKind.SCAN, JobKind.PLAN})
_WHY_NOT_CANCELLED: Final[dict[str, str]] = {
    JobKind.PROMOTE: "A copy that was approved ends by itself; withdraw a promotion before it is carried out.",
    JobKind.REBUILD: "A rebuild is stopped with its wave.",
    JobKind.MATCH: "A match ends by itself: what it leaves out, nobody would look for again.",
    JobKind.LINEAGE: "It ends by itself: what it leaves out, nobody would look for again.",
}
# These find what is done already and do the rest; the others belong to something with a state of its own.
_RETRIABLE: Final = frozenset(
    {JobKind.INGEST, JobKind.CRAWL, JobKind.SCAN, JobKind.MATCH, JobKind.LINEAGE, JobKind.PLAN}
)
_WHY_NOT_RETRIED: Final[dict[str, str]] = {
    JobKind.PROMOTE: "Carry the promotion out again on its page, or request it again: all is judged anew.",
    JobKind.REBUILD: "Its wave's page tries again what failed there.",
}


def why_not_cancelled(job: Job) -> str:
    """Return why the job cannot be stopped now, "" when it can."""
    if job.is_final:
        return f"It is {job.state} already."
    return "" if job.kind in _CANCELLABLE else _WHY_NOT_CANCELLED[job.kind]


def why_not_retried(job: Job) -> str:
    """Return why the job cannot be asked for again, "" when it can."""
    if job.state not in {Job.State.FAILED, Job.State.CANCELLED}:
        return "Only what failed or was cancelled is tried again."
    return "" if job.kind in _RETRIABLE else _WHY_NOT_RETRIED[job.kind]


@transaction.atomic
def cancel(job_id: int, *, actor: User) -> Job:
    """Stop a job that waits or runs; its worker notices at the next renewal and can commit nothing any more.

    Raises NotFound, or IllegalTransition with the reason.
    """
    job = lock_job(actor, job_id)
    if why := why_not_cancelled(job):
        raise IllegalTransition(why)
    before = job.state
    job.state, job.lease_until = Job.State.CANCELLED, None
    job.error_code, job.last_error = "cancelled", f"Cancelled by {actor}."
    job.save(update_fields=["state", "lease_until", "error_code", "last_error"])
    Job.objects.filter(pk=job.pk).update(finished_at=Now())
    handlers.gave_up(job)
    audit.record("job.cancelled", actor=actor, subject=job, kind=job.kind, before={"state": before})
    return job


@transaction.atomic
def retry(job_id: int, *, actor: User) -> Job:
    """Queue a job anew, on behalf of whom it ran for, and return the new one; the old one stays as it ended.

    Raises NotFound, or IllegalTransition with the reason.
    """
    job = lock_job(actor, job_id)
    if why := why_not_retried(job):
        raise IllegalTransition(why)
    again = services.queue_again(job)
    audit.record("job.retried", actor=actor, subject=job, kind=job.kind, again=again.pk)
    return again
