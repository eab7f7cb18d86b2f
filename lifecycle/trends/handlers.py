"""The daily job, and the schedule that queues it once the remedies of the day were found."""

from __future__ import annotations

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.registry.models import Repository
from lifecycle.trends import services
from lifecycle.trends.kinds import TRENDS


@every(600, "trends")
def note_today() -> None:
    """Queue the look of the day, if it was not taken yet and the remedies are of today."""
    if services.is_due(clock.now()):
        jobs.queue(TRENDS, subject_id=0, actor=system_user(), dedupe_key="day")


@handler(TRENDS)
def note_trends(run: JobRun) -> None:
    """Note the facts of all repositories and teams, batch by batch. Safe to run twice; a killed one goes on."""
    day = clock.now().date()
    ids = list(Repository.objects.filter(source=None).order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(ids), services.BATCH):
        with run.fenced():
            services.note(ids[start : start + services.BATCH], day)
        run.progress(min(start + services.BATCH, len(ids)), len(ids), "repositories")
    with run.fenced():
        services.finish(day)
    run.progress(len(ids), len(ids))
