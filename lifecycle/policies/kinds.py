"""The job kind of this package: ask an external check about an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.policies.models import ExternalAnswer


def _subjects(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    rows = ExternalAnswer.objects.filter(pk__in={job.subject_id for job in jobs})
    rows = rows.filter(repository__in=repositories_visible_to(reader))
    found = rows.select_related("check_asked__team", "image", "repository").in_bulk()
    return {
        job.pk: Subject(f"{row.check_asked} about {row.repository.name}@{row.image.digest[:19]}")
        for job in jobs
        if (row := found.get(job.subject_id)) is not None
    }


ASK: Final = register(
    Kind("ask_check", queue="match", label="Ask external check", subjects=_subjects, is_cancellable=True)
)
