"""The handler of LINEAGE jobs, and the events that start the search for base images."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.lineage import services
from lifecycle.lineage.kinds import LINEAGE


@handler(LINEAGE)
def lineage(run: JobRun) -> None:
    """Find the bases and the derived images of the subject and of each image in the payload's `image_ids`."""
    with run.fenced():
        changed = services.derive([run.job.subject_id, *run.job.payload.get("image_ids", ())])
    run.progress(1, 1, f"Base images of {len(changed)} image{'' if len(changed) == 1 else 's'} changed")


@subscribe(events.ImageIngested)
def derive_new_image(event: events.ImageIngested) -> None:
    """Find the base images of a new platform manifest."""
    services.queue_derivation(event.image_id)


@subscribe(events.BaseDeclared)
def derive_again(event: events.BaseDeclared) -> None:
    """Resolve the base that an index or one of its images declares."""
    services.queue_derivation(event.image_id)


@subscribe(events.ImagesImported)
def derive_imported(event: events.ImagesImported) -> None:
    """Find the base images of imported images, in the same transaction."""
    services.derive(event.image_ids)
