"""The jobs MATCH and SYNC_FEED, the schedule of feeds, and reactions to scanned and imported images."""

from __future__ import annotations

from lifecycle import events
from lifecycle.advisories import feeds, services
from lifecycle.advisories.kinds import MATCH, SYNC_FEED
from lifecycle.advisories.matching import BATCH, match_packages
from lifecycle.advisories.models import Feed
from lifecycle.core import locks
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.schedule import every

_AGAIN_AFTER_S = 30.0


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


@handler(SYNC_FEED)
def sync_feed(run: JobRun) -> None:
    """Synchronise or remove the feed. Both continue where an earlier attempt stopped. A removed feed is no error."""
    name = Feed.objects.filter(pk=run.job.subject_id).values_list("name", flat=True).first()
    with locks.alone(f"feed:{name}") as is_alone:
        if not is_alone:
            raise Postponed("Another run of this feed is not finished.", seconds=_AGAIN_AFTER_S)
        feed = Feed.objects.filter(pk=run.job.subject_id).first()  # as the run before left it
        if feed is not None:
            _sync_or_remove(run, feed)


def _sync_or_remove(run: JobRun, feed: Feed) -> None:
    if run.job.payload.get("remove"):
        feeds.run_removal(feed, progress=run.progress)
        return
    result = feeds.run_sync(
        feed,
        actor=run.job.actor,
        progress=run.progress,
        accept_smaller=bool(run.job.payload.get("accept_smaller")),
    )
    run.log(", ".join(f"{name} {value}" for name, value in result.items() if name != "errors"))
    for error in result.get("errors", ()):
        run.log(error)


@every(60, "feeds")
def queue_due_feeds() -> None:
    """Queue the feeds whose time has come."""
    feeds.queue_due_feeds()


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
