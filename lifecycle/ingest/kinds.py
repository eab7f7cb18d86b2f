"""The job kinds of this package: process one notification, and crawl a registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.ingest.models import Delivery
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Registry, Repository


def _deliveries(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    rows = Delivery.objects.filter(pk__in=[job.subject_id for job in jobs]).values_list(
        "pk", "registry__name", "action"
    )
    subjects = {pk: Subject(f"{action or 'notification'} from registry {registry}") for pk, registry, action in rows}
    return {job.pk: subjects[job.subject_id] for job in jobs if job.subject_id in subjects}


def _registries(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    rows = Registry.objects.filter(pk__in=[job.subject_id for job in jobs]).values_list("pk", "name")
    names = dict(rows)
    subjects = {}
    for job in jobs:
        if repository := job.payload.get("repository"):
            subjects[job.pk] = Subject(str(repository))
        elif job.subject_id in names:
            subjects[job.pk] = Subject(f"all repositories of {names[job.subject_id]}")
    return subjects


def _deletions(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    """Return what each job deletes. Only its actor and admins see the job, and both know the repository."""
    rows = Repository.objects.filter(pk__in=[job.subject_id for job in jobs]).select_related("team")
    repositories = {row.pk: row for row in rows}
    subjects = {}
    for job in jobs:
        if name := job.payload.get("all"):
            subjects[job.pk] = Subject(f"repository {name}")
        elif (row := repositories.get(job.subject_id)) is not None:
            tag, digest = job.payload.get("tag"), str(job.payload.get("digest", ""))
            words = f"{row.name}:{tag}" if tag else f"{row.name}@{digest[:19]}…"
            subjects[job.pk] = Subject(words, "lifecycle:repository", (row.team.slug, row.name))
    return subjects


# Both can be cancelled, because the next crawl finds all changes that a cancelled job missed.
INGEST: Final = register(
    Kind("ingest", queue="ingest", label="Process push", subjects=_deliveries, is_cancellable=True)
)
DELETE: Final = register(
    Kind("delete", queue="ingest", label="Delete from registry", subjects=_deletions, is_cancellable=True)
)
CRAWL: Final = register(Kind("crawl", queue="ingest", label="Sync registry", subjects=_registries, is_cancellable=True))
