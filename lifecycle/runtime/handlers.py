"""The jobs of this package, and what the clock calls."""

from __future__ import annotations

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.runtime import drift, events, services
from lifecycle.runtime.kinds import DRIFT, EVENTS, REPORT


@handler(REPORT)
def apply_reports(run: JobRun) -> None:
    """Apply what a reporter sent. Safe to run twice: an applied report is not applied again."""
    count = services.apply_reports(run, run.job.subject_id)
    run.log(f"{count} reports applied.")
    jobs.queue(DRIFT, subject_id=0, actor=system_user(), dedupe_key="sweep")


@handler(DRIFT)
def compare(run: JobRun) -> None:
    """Raise and close alerts of drift. Safe to run twice: what has a live alert gets no second one."""
    with run.fenced():
        matched = services.match_again()
        services.rebind()
        new, closed = drift.sweep(clock.now())
    run.log(f"{len(new)} new alerts, {closed} closed, {matched} containers matched to images.")


@handler(EVENTS)
def fold(run: JobRun) -> None:
    """Fold events into alerts. Safe to run twice: a folded event is gone."""
    count = new = 0
    while True:
        with run.fenced():
            done, alerts = events.fold_some(clock.now())
        count, new = count + done, new + len(alerts)
        if not done:
            break
    run.log(f"{count} events, {new} new alerts.")


@every(5, "events")
def fold_again() -> None:
    """Queue the job for events whose wake-up was lost."""
    if events.is_pending():
        events.queue()


@every(30, "drift")
def look_again() -> None:
    """Queue a comparison: a quarantine, a promotion or a moved tag changes what is right without a report."""
    events.tell_untold(clock.now())
    if drift.is_due():
        jobs.queue(DRIFT, subject_id=0, actor=system_user(), dedupe_key="sweep")


@every(3600, "runtime-tidy")
def tidy() -> None:
    """Delete what is too old to be asked for."""
    services.tidy(clock.now())
    events.tidy(clock.now())
