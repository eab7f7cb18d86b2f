"""The job kind of this package: read a VEX feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.vex.queries import feeds_visible_to


def _feeds(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    """Return the name of each job's feed that the reader can see."""
    rows = feeds_visible_to(reader).filter(pk__in=[job.subject_id for job in jobs])
    names = dict(rows.values_list("pk", "name"))
    return {job.pk: Subject(names[job.subject_id]) for job in jobs if job.subject_id in names}


# It can be cancelled, because the next run continues where it stopped.
SYNC_VEX_FEED: Final = register(
    Kind("sync_vex", queue="ingest", label="Read VEX feed", subjects=_feeds, is_cancellable=True)
)
