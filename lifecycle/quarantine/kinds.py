"""The job kind of this package: take withdrawn images out of the registry, or put them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.quarantine.queries import quarantines_visible_to


def _quarantines(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    ids = {job.subject_id for job in jobs}
    seen = set(quarantines_visible_to(reader).filter(pk__in=ids).values_list("pk", flat=True))
    return {
        job.pk: Subject(f"Q-{job.subject_id}", "lifecycle:quarantine", (job.subject_id,))
        for job in jobs
        if job.subject_id in seen
    }


WITHDRAW: Final = register(
    Kind(
        "withdraw",
        queue="ingest",
        label="Withdraw image",
        subjects=_quarantines,
        why_not_cancelled="Lift the quarantine: the image is then put back.",
        is_retried_forever=True,
    )
)
