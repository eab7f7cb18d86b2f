"""The MATCH job, and reactions to scanned and imported images."""

from __future__ import annotations

from lifecycle import events
from lifecycle.advisories import services
from lifecycle.advisories.kinds import MATCH
from lifecycle.advisories.matching import BATCH, match_packages
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, handler


@handler(MATCH)
def match(run: JobRun) -> None:
    """Match the payload's new `package_ids` or changed `advisory_ids`."""
    work = (
        ("package_ids", services.match_packages),
        ("advisory_ids", services.match_advisories),
    )
    total = sum(len(run.job.payload.get(name, ())) for name, _ in work)
    done = 0
    for name, function in work:
        ids = list(run.job.payload.get(name, ()))
        for start in range(0, len(ids), BATCH):
            run.progress(done, total, name.replace("_ids", "s").replace("advisorys", "advisories"))
            with run.fenced():
                function(ids[start : start + BATCH])
            done += len(ids[start : start + BATCH])
    run.progress(done, total)


@subscribe(events.ImagesScanned)
def match_new_packages(event: events.ImagesScanned) -> None:
    """Queue the matching of package versions that are new to Gravingdock."""
    services.queue_matching(event.new_package_ids, image_id=event.image_ids[0], actor_id=event.actor_id)


@subscribe(events.ImagesImported)
def match_imported(event: events.ImagesImported) -> None:
    """Match the new package versions of imported images immediately, without a job.

    Only the imported images have them, and ImagesScanned follows for those: MatchesChanged would count them twice.
    """
    match_packages(event.new_package_ids)
