"""What follows from what, in one place instead of signals.

A service that did something calls the function here that is named for the event, inside its own transaction; the
function queues jobs, marks rows that a sweep finds, or calls another service's quick part. `images_imported` alone does
the whole work there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accounts.models import User
    from lifecycle.registry.models import Image, Repository, TagEvent


def connect() -> None:
    """Load every handler of jobs, so that a worker knows them."""
    from lifecycle.jobs import handlers  # noqa: PLC0415 -- needs the app registry

    handlers.load()


def image_ingested(image: Image) -> None:
    """A platform manifest is known for the first time: find what it was built on, and what is in it."""
    from accounts.queries import system_user  # noqa: PLC0415 -- as above
    from lifecycle.jobs import services as jobs  # noqa: PLC0415
    from lifecycle.jobs.models import JobKind  # noqa: PLC0415

    actor = system_user()
    jobs.queue(JobKind.LINEAGE, subject_id=image.pk, actor=actor, dedupe_key=f"image:{image.pk}")
    jobs.queue(JobKind.SCAN, subject_id=image.pk, actor=actor, dedupe_key=f"image:{image.pk}")


def unscanned_image_pushed(image: Image) -> None:
    """An image came again whose scan had failed, perhaps because it was in no repository any more: scan it now."""
    from accounts.queries import system_user  # noqa: PLC0415 -- as above
    from lifecycle.jobs import services as jobs  # noqa: PLC0415
    from lifecycle.jobs.models import JobKind  # noqa: PLC0415

    jobs.queue(JobKind.SCAN, subject_id=image.pk, actor=system_user(), dedupe_key=f"image:{image.pk}")


def base_named(image: Image) -> None:
    """An index came, or one named the base of an image that came before it: find what stands on what again."""
    from accounts.queries import system_user  # noqa: PLC0415 -- as above
    from lifecycle.jobs import services as jobs  # noqa: PLC0415
    from lifecycle.jobs.models import JobKind  # noqa: PLC0415

    jobs.queue(JobKind.LINEAGE, subject_id=image.pk, actor=system_user(), dedupe_key=f"image:{image.pk}")


def mover_unknown(repository: Repository, tag: str, image: Image) -> None:
    """A protected tag was moved and nobody is named yet: look again when the push's notification had its time."""
    from lifecycle.ingest import services as ingest  # noqa: PLC0415 -- as above

    ingest.queue_settling(repository, tag=tag, image=image)


def tag_moved(event: TagEvent) -> None:
    """A tag came or points elsewhere now: whoever watches it as a base wants to know."""
    from accounts.queries import system_user  # noqa: PLC0415 -- as above
    from lifecycle.jobs import services as jobs  # noqa: PLC0415
    from lifecycle.jobs.models import JobKind  # noqa: PLC0415
    from lifecycle.rebuild.models import UpstreamWatch  # noqa: PLC0415

    if event.new_image_id is None:
        return
    for watch in UpstreamWatch.objects.filter(repository_id=event.tag.repository_id, tag=event.tag.name):
        jobs.queue(JobKind.PLAN, subject_id=watch.pk, actor=system_user(), dedupe_key=f"watch:{watch.pk}")


def rights_changed(user_ids: Iterable[int]) -> None:
    """People may more, or less, than before: what they voted on is judged again within seconds."""
    from lifecycle.promotion.models import PromotionRequest  # noqa: PLC0415 -- as above
    from lifecycle.promotion.queries import LIVE_STATES  # noqa: PLC0415

    voted_on = PromotionRequest.objects.filter(state__in=LIVE_STATES, votes__voter__in=list(user_ids))
    voted_on.update(judged_at=None)


def images_scanned(image_ids: list[int], *, new_package_ids: list[int], actor: User) -> None:
    """What is inside images is known now: count what is known against it, and match what nobody carried before."""
    from lifecycle.advisories import services as advisories  # noqa: PLC0415 -- as above
    from lifecycle.jobs import services as jobs  # noqa: PLC0415
    from lifecycle.jobs.models import JobKind  # noqa: PLC0415

    advisories.refresh_risk(image_ids)
    for start in range(0, len(new_package_ids), 5000):
        batch = new_package_ids[start : start + 5000]
        jobs.queue(JobKind.MATCH, subject_id=image_ids[0], actor=actor, payload={"package_ids": batch})


def images_imported(image_ids: list[int], *, new_package_ids: list[int]) -> set[int]:
    """Images came by an inventory file: find at once what they stand on and what is known against what they hold.

    No job: who imports on a machine without workers gets the whole answer too. Returns the images whose bases changed.
    """
    from lifecycle.advisories import services as advisories  # noqa: PLC0415 -- as above
    from lifecycle.lineage import services as lineage  # noqa: PLC0415

    advisories.match_packages(new_package_ids)
    return lineage.derive(image_ids)
