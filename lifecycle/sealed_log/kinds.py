"""The job kinds of this package: copy checkpoints to anchors, and derive the whole log again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.sealed_log.access import why_not_read_log
from lifecycle.sealed_log.models import Anchor


def _anchors(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    if why_not_read_log(reader) is not None:
        return {}
    names = dict(Anchor.objects.filter(pk__in={job.subject_id for job in jobs}).values_list("pk", "name"))
    return {
        job.pk: Subject(f"anchor {names[job.subject_id]}", "lifecycle:audit-log")
        for job in jobs
        if job.subject_id in names
    }


ANCHOR: Final = register(
    Kind(
        "anchor",
        queue="notify",
        label="Anchor checkpoint",
        subjects=_anchors,
        why_not_cancelled="Remove the anchor instead.",
        why_not_retried="The next checkpoint is anchored within minutes.",
    )
)
CHECK_LOG: Final = register(Kind("check-log", queue="match", label="Check sealed log", is_cancellable=True))
