"""The job kinds of this package: match package versions with advisories, and synchronise a feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.advisories.models import Feed
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job

_PAYLOAD: Final = (("package_ids", "package version", "package versions"), ("advisory_ids", "advisory", "advisories"))


def _subjects(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    return {job.pk: Subject(_counts(job)) for job in jobs}


def _counts(job: Job) -> str:
    counts = [(len(job.payload.get(key, ())), singular, plural) for key, singular, plural in _PAYLOAD]
    words = [f"{count:,} {singular if count == 1 else plural}" for count, singular, plural in counts if count]
    return ", ".join(words) or "nothing new"


def _feeds(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    """Return the name of each job's feed. Only its actor and admins see the job, and feeds are no secret."""
    names = dict(Feed.objects.filter(pk__in=[job.subject_id for job in jobs]).values_list("pk", "name"))
    return {
        job.pk: Subject(f"removal of {names[job.subject_id]}" if job.payload.get("remove") else names[job.subject_id])
        for job in jobs
        if job.subject_id in names
    }


# It can be cancelled, because the next run continues where it stopped.
SYNC_FEED: Final = register(Kind("sync_feed", queue="ingest", label="Sync feed", subjects=_feeds, is_cancellable=True))
MATCH: Final = register(
    Kind(
        "match",
        queue="match",
        label="Match advisories",
        subjects=_subjects,
        why_not_cancelled="This job cannot be cancelled, because its missing results would not be found later.",
        is_retried_forever=True,
    )
)
