"""The job handlers of retention."""

from __future__ import annotations

from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.retention import running
from lifecycle.retention.kinds import DELETE_PLANNED, RESTORE


@handler(DELETE_PLANNED, gave_up=running.give_up)
def delete_planned(run: JobRun) -> None:
    """Delete the images of a confirmed plan."""
    running.run_plan(run)


@handler(RESTORE)
def restore(run: JobRun) -> None:
    """Put back what a plan deleted."""
    running.run_restore(run)
