"""What a worker does for a MATCH job."""

from __future__ import annotations

from lifecycle.advisories import services
from lifecycle.advisories.matching import BATCH
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.models import JobKind


@handler(JobKind.MATCH)
def match(run: JobRun) -> None:
    """Match what the payload names: `package_ids` that are new, or `advisory_ids` that changed."""
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
