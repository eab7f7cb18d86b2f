"""The job handlers of this package (one delivery, one crawl), and the schedule of crawls."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime

from django.conf import settings
from django.db.models import Q

from lifecycle.ingest import services
from lifecycle.ingest.constants import PROBLEMS_LOGGED
from lifecycle.ingest.kinds import CRAWL, DELETE, INGEST
from lifecycle.ingest.managing import run_deletion
from lifecycle.ingest.removing import is_whole, run_removal
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.registry.models import Registry
from lifecycle.registry.services import ensure_managed_registry


def _gave_up(job: Job) -> None:
    services.abandon_delivery(job.subject_id, job.last_error)


def _first(limit: int, write: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that passes the first `limit` texts to `write`."""
    numbers = itertools.count()

    def write_some(text: str) -> None:
        if next(numbers) < limit:
            write(text)

    return write_some


@handler(DELETE)
def delete(run: JobRun) -> None:
    """Delete an image, a tag or a whole repository that a user asked to delete."""
    if is_whole(run.job.payload):
        run_removal(run)
    else:
        run_deletion(run)


@handler(INGEST, gave_up=_gave_up)
def ingest(run: JobRun) -> None:
    """Process one delivery. Idempotent: it reads the registry again and keeps existing rows."""
    services.handle_delivery(run.job.subject_id, alive=run.check)


@handler(CRAWL)
def crawl(run: JobRun) -> None:
    """Crawl a registry or the repository in the payload, or settle the tag move in the payload."""
    payload = run.job.payload
    if "seen_at" in payload:
        seen_at = datetime.fromisoformat(payload["seen_at"])
        services.settle(
            run.job.subject_id,
            payload["repository"],
            payload["tag"],
            payload["digest"],
            seen_at=seen_at,
            alive=run.check,
        )
        return
    counts = services.crawl(
        run.job.subject_id,
        repository_name=payload.get("repository") or None,
        progress=run.progress,
        report=_first(PROBLEMS_LOGGED, run.log),
    )
    run.log(", ".join(f"{name} {count}" for name, count in counts.items()))


@every(settings.CRAWL_EVERY_S, "crawl")
def crawl_all() -> None:
    """Queue a crawl of each registry that we manage or that was added, because some notifications get lost.

    A registry that only an inventory file names (docker.io ...) is not crawled. No one allowed us to read it, and its
    images that are hidden from anonymous clients would look deleted.
    """
    ensure_managed_registry()
    for registry in Registry.objects.filter(Q(is_managed=True) | Q(is_added=True)):
        services.queue_crawl(registry)
