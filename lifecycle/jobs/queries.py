"""Reads of jobs that several callers share."""

from __future__ import annotations

from django.db.models import QuerySet

from lifecycle.jobs.models import Job, JobLogLine


def running_count() -> int:
    """Return how many jobs a worker holds now."""
    return Job.objects.filter(state=Job.State.RUNNING).count()


def jobs_of(kind: str, subject_id: int) -> QuerySet[Job]:
    """Return the jobs about one subject, newest first."""
    return Job.objects.filter(kind=kind, subject_id=subject_id).order_by("-pk")


def log_tail(job_ids: list[int], *, limit: int = 200) -> list[JobLogLine]:
    """Return the last `limit` log lines of these jobs, oldest first."""
    return list(JobLogLine.objects.filter(job_id__in=job_ids).order_by("-pk")[:limit])[::-1]
