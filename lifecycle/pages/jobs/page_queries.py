"""Queries of the job pages: the subject of each job in words, and the estimated time left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.urls import reverse

from accounts.models import User
from lifecycle.core import clock
from lifecycle.jobs.kinds import Subject, kind_called
from lifecycle.jobs.models import Job

# Before both of these are reached, an estimate from the pace so far is unreliable.
_ETA_FROM: Final = 0.05  # share of the work done
_ETA_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class SubjectLink:
    """The subject of a job in words, and the URL of its page, "" when the reader cannot open one."""

    words: str
    url: str = ""


def subjects_of(jobs: Iterable[Job], reader: User) -> dict[int, SubjectLink]:
    """Return {job id: subject}, with only the names that `reader` can see.

    The number of queries depends on the number of kinds, not on the number of jobs.
    """
    by_kind: dict[str, list[Job]] = {}
    for job in jobs:
        by_kind.setdefault(job.kind, []).append(job)
    links: dict[int, SubjectLink] = {}
    for name, members in by_kind.items():
        subjects = kind_called(name).subjects(members, reader)
        links |= {job.pk: _link(subjects.get(job.pk) or Subject(f"subject {job.subject_id}")) for job in members}
    return links


def _link(subject: Subject) -> SubjectLink:
    return SubjectLink(subject.words, reverse(subject.page, args=subject.page_args) if subject.page else "")


def seconds_left(job: Job) -> float | None:
    """Return the estimated seconds until a running job finishes at its pace so far, or None without an estimate."""
    if job.state != Job.State.RUNNING or job.started_at is None or not job.progress_total:
        return None
    share = job.progress_done / job.progress_total
    ran_s = (clock.now() - job.started_at).total_seconds()
    if not _ETA_FROM <= share < 1 or ran_s < _ETA_AFTER_S:
        return None
    return ran_s * (1 - share) / share
