"""The job kinds of this package: plan a rebuild wave for a watched tag, and rebuild one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.rebuild.models import RebuildJob, RebuildWave, UpstreamWatch


def _watches(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    ids = {job.subject_id for job in jobs}
    visible = set(repositories_visible_to(reader).filter(watches__in=ids).values_list("pk", flat=True))
    subjects = {}
    for watch in UpstreamWatch.objects.filter(pk__in=ids).select_related("repository__team"):
        repository, words = watch.repository, f"{watch.repository.name}:{watch.tag}"
        if watch.repository_id in visible:
            subjects[watch.pk] = Subject(words, "lifecycle:repository", (repository.team.slug, repository.name))
        elif reader.is_superuser:
            subjects[watch.pk] = Subject(words)
    return {job.pk: subjects[job.subject_id] for job in jobs if job.subject_id in subjects}


def _rebuilds(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    ids = {job.subject_id for job in jobs}
    repositories = repositories_visible_to(reader)
    waves = RebuildWave.objects.filter(jobs__in=ids, repository__in=repositories)
    visible_waves = set(waves.values_list("pk", flat=True))
    visible = set(repositories.filter(rebuild_jobs__in=ids).values_list("pk", flat=True))
    subjects = {}
    for job in RebuildJob.objects.filter(pk__in=ids).select_related("wave", "repository"):
        words = f"{job.repository.name}:{job.tag} in {job.wave}"
        if job.wave_id in visible_waves and job.repository_id in visible:
            subjects[job.pk] = Subject(words, "lifecycle:wave", (job.wave_id,))
        elif reader.is_superuser:
            subjects[job.pk] = Subject(words)
    return {job.pk: subjects[job.subject_id] for job in jobs if job.subject_id in subjects}


# Can be cancelled, because the next move of the tag creates a new plan.
PLAN: Final = register(
    Kind("plan", queue="match", label="Plan rebuild", subjects=_watches, is_cancellable=True, is_retried_forever=True)
)
REBUILD: Final = register(
    Kind(
        "rebuild",
        queue="rebuild",
        label="Rebuild",
        subjects=_rebuilds,
        why_not_cancelled="Cancel the rebuild wave instead.",
        why_not_retried="Retry it on the wave page.",
    )
)
