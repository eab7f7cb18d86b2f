"""The job of this package: match package versions and advisories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job

_PAYLOAD: Final = (("package_ids", "package versions"), ("advisory_ids", "advisories"))


def _subjects(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    return {job.pk: Subject(_counts(job)) for job in jobs}


def _counts(job: Job) -> str:
    counts = [(len(job.payload.get(name, ())), words) for name, words in _PAYLOAD]
    return ", ".join(f"{count:,} {words}" for count, words in counts if count) or "nothing new"


MATCH: Final = register(
    Kind(
        "match",
        queue="match",
        label="Match advisories",
        subjects=_subjects,
        why_not_cancelled="A match ends by itself: what it leaves out, nobody would look for again.",
        is_retried_forever=True,
    )
)
