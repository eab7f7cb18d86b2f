"""The jobs of this package, and what the clock calls."""

from __future__ import annotations

from lifecycle.core import clock
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.runtime import services
from lifecycle.runtime.kinds import REPORT


@handler(REPORT)
def apply_reports(run: JobRun) -> None:
    """Apply what a reporter sent. Safe to run twice: an applied report is not applied again."""
    count = services.apply_reports(run, run.job.subject_id)
    run.log(f"{count} reports applied.")


@every(3600, "runtime-tidy")
def tidy() -> None:
    """Delete what is too old to be asked for."""
    services.tidy(clock.now())
