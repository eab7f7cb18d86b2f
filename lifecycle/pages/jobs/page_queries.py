"""Reads of the jobs' pages: what each job is about in words, and how long it may still take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.urls import reverse

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core import clock
from lifecycle.ingest.models import Delivery
from lifecycle.jobs.models import Job, JobKind
from lifecycle.pages.registry.page_queries import places_of
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import promotions_visible_to
from lifecycle.rebuild.models import RebuildJob, UpstreamWatch
from lifecycle.rebuild.queries import waves_visible_to
from lifecycle.registry.models import Image, Registry

KIND_WORDS: Final[dict[str, str]] = {
    JobKind.INGEST: "Take in a push",
    JobKind.CRAWL: "Crawl a registry",
    JobKind.SCAN: "List packages",
    JobKind.MATCH: "Match advisories",
    JobKind.LINEAGE: "Find the base",
    JobKind.PLAN: "Plan a rebuild",
    JobKind.REBUILD: "Rebuild",
    JobKind.PROMOTE: "Carry out a promotion",
}
_ETA_FROM: Final = 0.05  # share done, below which the pace says nothing
_ETA_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job is about, and where the reader finds it ("" where nowhere)."""

    words: str
    url: str = ""


def subjects_of(jobs: Iterable[Job], reader: User) -> dict[int, Subject]:
    """Return the subject of each job by the job's id, named only as far as the reader may see it.

    A handful of queries for each kind among the jobs, whatever their number. An admin, who reads the whole trail, is
    told names too, and gets a link where a grant lets it lead somewhere.
    """
    ids: dict[str, set[int]] = {}
    listed = list(jobs)
    for job in listed:
        ids.setdefault(job.kind, set()).add(job.subject_id)
    images = _images(ids.get(JobKind.SCAN, set()) | ids.get(JobKind.LINEAGE, set()), reader)
    found: dict[str, dict[int, Subject]] = {
        JobKind.SCAN: images,
        JobKind.LINEAGE: images,
        JobKind.INGEST: _deliveries(ids.get(JobKind.INGEST, set())),
        JobKind.CRAWL: _registries(ids.get(JobKind.CRAWL, set())),
        JobKind.PLAN: _watches(ids.get(JobKind.PLAN, set()), reader),
        JobKind.REBUILD: _rebuilds(ids.get(JobKind.REBUILD, set()), reader),
        JobKind.PROMOTE: _promotions(ids.get(JobKind.PROMOTE, set()), reader),
    }
    return {job.pk: _subject(job, found) for job in listed}


def _subject(job: Job, found: dict[str, dict[int, Subject]]) -> Subject:
    if job.kind == JobKind.MATCH:
        counts = [(len(job.payload.get(f"{name}_ids", ())), word) for name, word in _MATCHED]
        return Subject(", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing new")
    if job.kind == JobKind.CRAWL and job.payload.get("repository"):
        return Subject(str(job.payload["repository"]))
    return found[job.kind].get(job.subject_id) or Subject(f"number {job.subject_id}")


_MATCHED: Final = (("package", "package versions"), ("advisory", "advisories"))


def _images(ids: set[int], reader: User) -> dict[int, Subject]:
    if not ids:
        return {}
    digests = dict(Image.objects.filter(pk__in=ids).values_list("pk", "digest"))
    places = places_of(ids, repositories_visible_to(reader))
    found = {}
    for pk, digest in digests.items():
        if (place := places.get(pk)) is not None:
            url = reverse("lifecycle:image", args=[place.repository.team.slug, place.repository.name, digest])
            found[pk] = Subject(place.label, url)
        elif reader.is_superuser:
            found[pk] = Subject(digest[:19])
    return found


def _deliveries(ids: set[int]) -> dict[int, Subject]:
    rows = Delivery.objects.filter(pk__in=ids).values_list("pk", "registry__name", "action") if ids else ()
    return {pk: Subject(f"{action or 'notification'} told by {registry}") for pk, registry, action in rows}


def _registries(ids: set[int]) -> dict[int, Subject]:
    rows = Registry.objects.filter(pk__in=ids).values_list("pk", "name") if ids else ()
    return {pk: Subject(f"all of {name}") for pk, name in rows}


def _watches(ids: set[int], reader: User) -> dict[int, Subject]:
    if not ids:
        return {}
    rows = UpstreamWatch.objects.filter(pk__in=ids).select_related("repository__team")
    seen = set(repositories_visible_to(reader).filter(watches__in=ids).values_list("pk", flat=True))
    found = {}
    for watch in rows:
        if watch.repository_id in seen:
            url = reverse("lifecycle:repository", args=[watch.repository.team.slug, watch.repository.name])
            found[watch.pk] = Subject(f"on {watch.repository.name}:{watch.tag}", url)
        elif reader.is_superuser:
            found[watch.pk] = Subject(f"on {watch.repository.name}:{watch.tag}")
    return found


def _rebuilds(ids: set[int], reader: User) -> dict[int, Subject]:
    if not ids:
        return {}
    waves = set(waves_visible_to(reader).filter(jobs__in=ids).values_list("pk", flat=True))
    seen = set(repositories_visible_to(reader).filter(rebuild_jobs__in=ids).values_list("pk", flat=True))
    found = {}
    for job in RebuildJob.objects.filter(pk__in=ids).select_related("wave", "repository"):
        words = f"{job.repository.name}:{job.tag} in {job.wave}"
        if job.wave_id in waves and job.repository_id in seen:
            found[job.pk] = Subject(words, reverse("lifecycle:wave", args=[job.wave_id]))
        elif reader.is_superuser:
            found[job.pk] = Subject(words)
    return found


def _promotions(ids: set[int], reader: User) -> dict[int, Subject]:
    if not ids:
        return {}
    seen = set(promotions_visible_to(reader).filter(pk__in=ids).values_list("pk", flat=True))
    found = {}
    for request in PromotionRequest.objects.filter(pk__in=ids).select_related("repository", "environment"):
        words = f"{request.repository.name}:{request.tag} to {request.environment.slug}"
        if request.pk in seen:
            found[request.pk] = Subject(words, reverse("lifecycle:promotion", args=[request.pk]))
        elif reader.is_superuser:
            found[request.pk] = Subject(words)
    return found


def seconds_left(job: Job) -> float | None:
    """Return how long a running job takes at its pace so far, or None while that would be a guess."""
    if job.state != Job.State.RUNNING or job.started_at is None or not job.progress_total:
        return None
    share = job.progress_done / job.progress_total
    ran_s = (clock.now() - job.started_at).total_seconds()
    if not _ETA_FROM <= share < 1 or ran_s < _ETA_AFTER_S:
        return None
    return ran_s * (1 - share) / share
