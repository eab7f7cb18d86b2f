"""The job of this package, the schedule that queues it, and the events that say what changed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from accounts.queries import system_user
from lifecycle import events
from lifecycle.alerts import passes
from lifecycle.alerts.kinds import ALERTS
from lifecycle.alerts.models import AlertPass, ChangedPackages
from lifecycle.core import clock
from lifecycle.events import subscribe
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every


@subscribe(events.MatchesChanged)
def note_changed(event: events.MatchesChanged) -> None:
    """Note the package versions whose findings changed. The change of one transaction is one row."""
    _note(event.package_ids, is_first=False)


@subscribe(events.ImagesScanned)
def note_scanned(event: events.ImagesScanned) -> None:
    """Note the package versions that are new: their first findings are those of a new image."""
    _note(event.new_package_ids, is_first=True)


@subscribe(events.ImagesImported)
def note_imported(event: events.ImagesImported) -> None:
    """Note the new package versions of imported images."""
    _note(event.new_package_ids, is_first=True)


@subscribe(events.VexChanged)
def note_decided(event: events.VexChanged) -> None:
    """Note that findings were decided: each live alert is checked at the next look. A row without packages says so."""
    ChangedPackages.objects.create(package_ids=[], is_first=False)


@subscribe(events.WaiversChanged)
def note_waived(event: events.WaiversChanged) -> None:
    """Note that findings are waived, or open again, likewise."""
    ChangedPackages.objects.create(package_ids=[], is_first=False)


def _note(package_ids: Collection[int], *, is_first: bool) -> None:
    if package_ids:
        ChangedPackages.objects.create(package_ids=sorted(package_ids), is_first=is_first)


@every(5, "alerts")
def look_again() -> None:
    """Queue a look at what changed, once a synchronisation is over."""
    if passes.is_due(clock.now()):
        jobs.queue(ALERTS, subject_id=0, actor=system_user(), dedupe_key="look")


@handler(ALERTS)
def find_alerts(run: JobRun) -> None:
    """Find what changed and tell the teams. Safe to run twice: what was seen is no difference any more."""

    def fenced(function: Callable[[], None]) -> None:
        with run.fenced():
            function()

    if not AlertPass.objects.exists():
        passes.remember_all(clock.now(), fenced)
        run.log("Remembered all findings without telling anybody.")
        return
    with run.fenced():
        new = passes.look_now(clock.now())
    run.log(f"{len(new)} new alerts.")
