"""The job of this package, and the schedule that queues it when something changed."""

from __future__ import annotations

from django.db.models import Max

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.lineage.models import Derivation
from lifecycle.registry.models import Image, TagEvent
from lifecycle.remedies import services
from lifecycle.remedies.kinds import REMEDIES
from lifecycle.remedies.models import RemedyPass


@every(30, "remedies")
def look_again() -> None:
    """Queue a look at what changed since the last one, if anything did."""
    last = RemedyPass.objects.order_by("-pk").first()
    moments = (
        Image.objects.aggregate(at=Max("risk_at"))["at"],
        TagEvent.objects.aggregate(at=Max("at"))["at"],
        Derivation.objects.aggregate(at=Max("created_at"))["at"],
        services.exploits_read_at(),
    )
    newest = max((moment for moment in moments if moment is not None), default=None)
    if newest is not None and (last is None or newest > last.looked_at or last.looked_at.date() != clock.now().date()):
        jobs.queue(REMEDIES, subject_id=0, actor=system_user(), dedupe_key="look")


@handler(REMEDIES)
def find_remedies(run: JobRun) -> None:
    """Find the remedies of what changed, batch by batch. Safe to run twice; a killed one begins again."""
    now = clock.now()
    ids, _ = services.to_find(now)
    for start in range(0, len(ids), services.BATCH):
        with run.fenced():
            services.find(ids[start : start + services.BATCH])
        run.progress(min(start + services.BATCH, len(ids)), len(ids), "repositories")
    with run.fenced():
        RemedyPass.objects.all().delete()
        RemedyPass.objects.create(looked_at=now)
    run.progress(len(ids), len(ids))
