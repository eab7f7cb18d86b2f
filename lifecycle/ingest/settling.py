"""A later check of a protected tag that moved before the registry reported which user moved it."""

from __future__ import annotations

from datetime import timedelta

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.ingest.constants import SETTLE_S
from lifecycle.ingest.kinds import CRAWL
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image, Repository


def queue_settling(repository: Repository, *, tag: str, image: Image) -> Job:
    """Queue a job that reverts this move if no user was named for it in time. A waiting job keeps its time."""
    seen_at = clock.now()
    return jobs.queue(
        CRAWL,
        subject_id=repository.registry_id,
        actor=system_user(),
        payload={"repository": repository.name, "tag": tag, "digest": image.digest, "seen_at": seen_at.isoformat()},
        dedupe_key=f"settle:{repository.pk}:{image.pk}:{tag}",
        not_before=seen_at + timedelta(seconds=SETTLE_S),
    )
