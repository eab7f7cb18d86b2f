"""The job handlers of this package, and its scheduled tasks."""

from __future__ import annotations

import structlog

from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.sealed_log.kinds import ANCHOR, CHECK_LOG
from lifecycle.sealed_log.services import queue_anchors, queue_check, run_anchor, run_check
from lifecycle.sealed_log.status import status

log = structlog.get_logger(__name__)


@handler(ANCHOR)
def anchor(run: JobRun) -> None:
    """Copy the last checkpoint to an anchor."""
    run_anchor(run)


@handler(CHECK_LOG)
def check_log(run: JobRun) -> None:
    """Derive the whole log again."""
    run_check(run)


@every(24 * 3600, "check-log")
def check_each_night() -> None:
    """Check the whole log once a day: at midnight UTC, or when a ticker runs again."""
    queue_check()


@every(60, "anchors")
def anchors() -> None:
    """Queue copies to anchors, and log what somebody must look at."""
    queue_anchors()
    for problem in status().problems:
        log.error("audit_log_behind", problem=problem)
