"""The job of this package, and the schedule that queues it when something changed."""

from __future__ import annotations

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.remedies import services
from lifecycle.remedies.kinds import REMEDIES


@every(30, "remedies")
def look_again() -> None:
    """Queue a look at what changed since the last one, if anything did."""
    if services.is_due(clock.now()):
        jobs.queue(REMEDIES, subject_id=0, actor=system_user(), dedupe_key="look")


@handler(REMEDIES)
def find_remedies(run: JobRun) -> None:
    """Find the remedies of what changed, batch by batch. Safe to run twice; a killed one begins again."""
    now, exploits = clock.now(), services.exploits_read_at()
    ids, _ = services.to_find(now)
    is_complete = True
    for start in range(0, len(ids), services.BATCH):
        with run.fenced():
            is_complete &= services.find(ids[start : start + services.BATCH])
        run.progress(min(start + services.BATCH, len(ids)), len(ids), "repositories")
    with run.fenced():
        services.remember(now, exploits, is_complete=is_complete)
    run.progress(len(ids), len(ids))
