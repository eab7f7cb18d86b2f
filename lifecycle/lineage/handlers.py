"""What a worker does for a LINEAGE job."""

from __future__ import annotations

from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.models import JobKind
from lifecycle.lineage import services


@handler(JobKind.LINEAGE)
def lineage(run: JobRun) -> None:
    """Find what the subject, and each of the payload's `image_ids`, was built on and what was built on it."""
    with run.fenced():
        changed = services.derive([run.job.subject_id, *run.job.payload.get("image_ids", ())])
    run.progress(1, 1, f"{len(changed)} derivations changed")
