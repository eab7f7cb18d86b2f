"""Queries for jobs that several callers share."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.models import User
from lifecycle.jobs.models import Job, JobLogLine


def running() -> QuerySet[Job]:
    """Return the running jobs of all teams."""
    return Job.objects.filter(state=Job.State.RUNNING)


def jobs_visible_to(actor: User) -> QuerySet[Job]:
    """Return the jobs that run on behalf of `actor`, or all jobs for an admin, each with its actor loaded."""
    if not actor.is_active:
        return Job.objects.none()
    jobs = Job.objects.select_related("actor")
    return jobs if actor.is_superuser or actor.kind == User.Kind.SYSTEM else jobs.filter(actor=actor)


def jobs_of(kind: str, subject_id: int) -> QuerySet[Job]:
    """Return the jobs of one kind about one subject, newest first."""
    return Job.objects.filter(kind=kind, subject_id=subject_id).order_by("-pk")


def log_tail(lines: QuerySet[JobLogLine], *, limit: int) -> tuple[list[JobLogLine], bool]:
    """Return the last `limit` of these log lines, oldest first, and whether there are earlier ones."""
    latest = list(lines.order_by("-pk")[: limit + 1])
    return latest[:limit][::-1], len(latest) > limit
