"""The job kinds of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.clusters.queries import clusters_visible_to
from lifecycle.inventory.models import Reporter
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job


def _reporters(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    rows = Reporter.objects.filter(pk__in={job.subject_id for job in jobs}).select_related("cluster")
    rows = rows.filter(cluster__in=clusters_visible_to(reader))
    names = {row.pk: f"{row.cluster.slug}, {row.name}" for row in rows}
    return {job.pk: Subject(names[job.subject_id]) for job in jobs if job.subject_id in names}


REPORT: Final = register(
    Kind(
        "report",
        queue="ingest",
        label="Apply reports of what runs",
        subjects=_reporters,
        why_not_cancelled="This job cannot be cancelled, because nobody would know what runs.",
        is_retried_forever=True,
    )
)
EVENTS: Final = register(
    Kind(
        "events",
        queue="ingest",
        label="Fold events of clusters into alerts",
        why_not_cancelled="This job cannot be cancelled, because teams would not be told of the events.",
        is_retried_forever=True,
    )
)
DRIFT: Final = register(
    Kind(
        "drift",
        queue="match",
        label="Compare what runs with what was promoted",
        why_not_cancelled="This job cannot be cancelled, because teams would not be told what runs.",
        is_retried_forever=True,
    )
)
