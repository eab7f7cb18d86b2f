"""A protected tag moved and the registry has not reported yet who moved it: look again after a while."""

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
    """Queue what takes back this one move when nobody was named for it in time; one that waits is not put off."""
    seen_at = clock.now()
    return jobs.queue(
        CRAWL,
        subject_id=repository.registry_id,
        actor=system_user(),
        payload={"repository": repository.name, "tag": tag, "digest": image.digest, "seen_at": seen_at.isoformat()},
        dedupe_key=f"settle:{repository.pk}:{image.pk}:{tag}",
        not_before=seen_at + timedelta(seconds=SETTLE_S),
    )
