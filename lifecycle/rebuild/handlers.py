"""The job handlers, scheduled tasks and event subscribers of this package. Each calls one function."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.rebuild import estimates, planning, running, services
from lifecycle.rebuild.kinds import PLAN, REBUILD


@handler(PLAN)
def plan(run: JobRun) -> None:
    planning.propose_for(run.job.subject_id, queued_at=run.job.created_at)


def _gave_up(job: Job) -> None:
    services.fail(job.subject_id, why=job.last_error or "The rebuild did not finish.")


@handler(REBUILD, gave_up=_gave_up)
def rebuild(run: JobRun) -> None:
    running.run_job(run)


@every(60, "rebuild_waves")
def resume_waves() -> None:
    """Queue the open jobs of running waves that have no run."""
    services.resume_waves()


@every(5, "rebuild_estimates")
def estimate_open() -> None:
    """Estimate the waves whose new base was not scanned when they were planned."""
    estimates.estimate_open()


@subscribe(events.TagMoved)
def plan_for_watches(event: events.TagMoved) -> None:
    """Plan a rebuild wave for every watch of a tag that was created or moved."""
    services.queue_plans(event.repository_id, event.tag)
