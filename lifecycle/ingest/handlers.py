"""The jobs of this package: one delivery, one crawl; and when crawls are due."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db.models import Q

from lifecycle.ingest import services
from lifecycle.ingest.kinds import CRAWL, INGEST
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.registry.models import Registry
from lifecycle.registry.services import ensure_managed_registry


@handler(INGEST)
def ingest(run: JobRun) -> None:
    """Follow one delivery. Idempotent: the registry is read again, and rows that are there stay."""
    services.handle_delivery(run.job.subject_id, alive=run.check)


@handler(CRAWL)
def crawl(run: JobRun) -> None:
    """Crawl a registry, or the repository its payload names; or settle the one move that it names."""
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
        run.job.subject_id, repository_name=payload.get("repository") or None, progress=run.progress
    )
    run.log(", ".join(f"{name} {count}" for name, count in counts.items()))


@every(settings.CRAWL_EVERY_S, "crawl")
def crawl_all() -> None:
    """Queue a crawl of every registry of ours: notifications are hints, and some get lost.

    One that an inventory file merely named (docker.io ...) is not: it was never said that we may read it, and what it
    does not show to strangers would look deleted.
    """
    ensure_managed_registry()
    for registry in Registry.objects.filter(Q(is_managed=True) | ~Q(username="")):
        services.queue_crawl(registry)
