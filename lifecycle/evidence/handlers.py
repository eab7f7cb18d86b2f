"""Reactions to events that change images: counts, verdicts at ingest, and the jobs of this package."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from django.db import transaction

from accounts.queries import system_user
from lifecycle import events
from lifecycle.core import clock, locks
from lifecycle.events import subscribe
from lifecycle.evidence import at_ingest, waiving
from lifecycle.evidence.kinds import APPLY_VEX, APPLY_WAIVER, HOLD_MALICIOUS, RECOUNT
from lifecycle.evidence.malicious import (
    hold_images,
    malicious_packages,
    malicious_packages_in,
    malicious_packages_under,
)
from lifecycle.evidence.package_counts import count_changed
from lifecycle.evidence.risk import COUNTING_LOCK, images_with_packages, refresh_risk
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.schedule import every
from lifecycle.quarantine.models import Quarantine
from lifecycle.registry.models import Image
from lifecycle.vex import effects

_BATCH: Final = 2000  # images per transaction
_AT_ONCE: Final = 200  # images whose findings a VEX statement changes in its own transaction; more are for a job
# An image that is stored at the same moment does not see the statement yet, and the statement does not see the image.
_LOOK_AGAIN_AFTER: Final = timedelta(minutes=2)


@subscribe(events.ImagesScanned)
def count_scanned(event: events.ImagesScanned) -> None:
    """Count the findings of newly scanned images."""
    refresh_risk(event.image_ids)
    _queue_holds(malicious_packages_in(event.image_ids))
    at_ingest.mark_again(event.image_ids)


@subscribe(events.ImageIngested)
def judge_new_image(event: events.ImageIngested) -> None:
    """Judge a new image by the rules at ingest, once its facts are there."""
    at_ingest.mark(event.image_id)


@subscribe(events.BaseDeclared)
def judge_new_index(event: events.BaseDeclared) -> None:
    """Judge a new index by the rules at ingest."""
    at_ingest.mark(event.image_id)


@subscribe(events.ArtifactIngested)
def judge_new_artifact(event: events.ArtifactIngested) -> None:
    """Judge a new Helm chart or other artifact by the rules at ingest."""
    at_ingest.mark(event.image_id)


@subscribe(events.TagMoved)
def judge_tagged_image(event: events.TagMoved) -> None:
    """Judge an image by the rules at ingest when it comes into another repository.

    One with a malicious package is held: when its record arrived, the image was perhaps in no repository.
    """
    at_ingest.mark(event.image_id)
    _queue_holds(malicious_packages_in([event.image_id]))


@subscribe(events.PlacesChanged)
def count_placed(event: events.PlacesChanged) -> None:
    """Count the findings of images that came into a repository, or left one: statements and waivers name places."""
    if effects.is_in_use() or waiving.is_in_use():
        _count_again(sorted(effects.with_platforms(event.image_ids)))


@subscribe(events.ExternalAnswered)
def judge_by_answer(event: events.ExternalAnswered) -> None:
    """Judge an image again that was judged at ingest: a service answered an external check about it."""
    at_ingest.mark_again([event.image_id], event.repository_id)


@every(5, "ingest_verdicts")
def judge_at_ingest() -> None:
    """Judge pushed images whose facts are there, after the scheduler's transaction ends."""
    transaction.on_commit(at_ingest.judge_due, robust=True)


@subscribe(events.MatchesChanged)
def count_matched(event: events.MatchesChanged) -> None:
    """Count the findings of every image that contains one of these package versions."""
    images = count_changed(event.package_ids, event.since)
    _queue_holds(malicious_packages(event.package_ids))
    at_ingest.mark_again(images)


@subscribe(events.QuarantineChanged)
def hold_again(event: events.QuarantineChanged) -> None:
    """Hold the images with a malicious package that another quarantine, or exemption, covers no longer."""
    if not event.begins:
        row = Quarantine.objects.get(pk=event.quarantine_id)
        _queue_holds(malicious_packages_under(row.image_id))


def _queue_holds(package_ids: Collection[int]) -> None:
    """Queue the quarantine of the images with these malicious package versions.

    A job, because who quarantines takes its lock before any row, and this transaction has written rows.
    """
    malicious = sorted(package_ids)
    if malicious:
        jobs.queue(
            HOLD_MALICIOUS,
            subject_id=malicious[0],
            actor=system_user(),
            payload={"package_ids": malicious},
            # All ids count: a job for other packages must not take the place of this one.
            dedupe_key=f"malicious:{hashlib.sha256(repr(malicious).encode()).hexdigest()}",
            priority=10,
        )


@handler(HOLD_MALICIOUS)
def hold_malicious(run: JobRun) -> None:
    """Quarantine the images with these malicious package versions. Safe to run twice."""
    for row in hold_images(run.job.payload["package_ids"]):
        run.log(f"{row}: {row.reason}")


@subscribe(events.VexChanged)
def count_decided(event: events.VexChanged) -> None:
    """Count the findings of the images that these statements are about: now if they are few, else in a job."""
    images = _images_about(event.statement_ids)
    few = len(images) <= _AT_ONCE
    if few:
        _count_again(images)
    digest = hashlib.sha256(repr(event.statement_ids).encode()).hexdigest()
    jobs.queue(
        APPLY_VEX,
        subject_id=event.statement_ids[0],
        actor=system_user(),
        payload={"statement_ids": list(event.statement_ids)},
        dedupe_key=f"vex:{digest}",
        not_before=clock.now() + _LOOK_AGAIN_AFTER if few else None,
        priority=5,
    )


def _images_about(statement_ids: Collection[int]) -> list[int]:
    near, far = effects.split_by_scope(statement_ids)
    images = effects.images_affected_by(statement_ids) | (effects.images_in_scope(near) if near else set())
    if far:
        images |= set(images_with_packages(effects.packages_about(far)))
    return sorted(images)


def _count_again(image_ids: Collection[int]) -> None:
    refresh_risk(image_ids)
    at_ingest.mark_again(image_ids)


@handler(APPLY_VEX)
def apply_vex(run: JobRun) -> None:
    """Count the findings of the images that some statements are about, batch by batch. Safe to run twice."""
    images = _images_about(run.job.payload["statement_ids"])
    for start in range(0, len(images), _BATCH):
        with run.fenced():
            _count_again(images[start : start + _BATCH])
        run.progress(min(start + _BATCH, len(images)), len(images), "images")
    run.progress(len(images), len(images))


@subscribe(events.WaiversChanged)
def count_waived(event: events.WaiversChanged) -> None:
    """Count the findings of the images that these waivers are about: now if they are few, else in a job."""
    images = waiving.images_about(event.waiver_ids)
    few = len(images) <= _AT_ONCE
    if few:
        _count_again(images)
    jobs.queue(
        APPLY_WAIVER,
        subject_id=event.waiver_ids[0],
        actor=system_user(),
        payload={"waiver_ids": list(event.waiver_ids)},
        dedupe_key=f"waivers:{hashlib.sha256(repr(event.waiver_ids).encode()).hexdigest()}",
        not_before=clock.now() + _LOOK_AGAIN_AFTER if few else None,
        priority=5,
    )


@handler(APPLY_WAIVER)
def apply_waiver(run: JobRun) -> None:
    """Count the findings of the images that some waivers are about, batch by batch. Safe to run twice."""
    images = waiving.images_about(run.job.payload["waiver_ids"])
    for start in range(0, len(images), _BATCH):
        with run.fenced():
            _count_again(images[start : start + _BATCH])
        run.progress(min(start + _BATCH, len(images)), len(images), "images")
    run.progress(len(images), len(images))


@subscribe(events.DerivationsChanged)
def inherit_again(event: events.DerivationsChanged) -> None:
    """Find again what images inherit from their bases, when these changed."""
    if effects.is_in_use():
        _count_again(sorted(effects.with_descendants(event.image_ids)))


@subscribe(events.CoverageChanged)
def count_covered(event: events.CoverageChanged) -> None:
    """Queue a count of all images: packages that no feed covered can be judged now, or the reverse."""
    jobs.queue(RECOUNT, subject_id=0, actor=system_user(), dedupe_key="coverage")


@handler(RECOUNT)
def recount(run: JobRun) -> None:
    """Count the findings and the unjudged packages of all scanned images, batch by batch. Safe to run twice.

    A job with `image_ids` counts only these images, which `refresh_risk` counted while matches were changed.
    """
    if image_ids := run.job.payload.get("image_ids"):
        with run.fenced():
            if not locks.try_share(COUNTING_LOCK):
                raise Postponed("Matches are being changed.", seconds=5)
            refresh_risk(image_ids)
        return
    images = Image.objects.filter(scanned_at__isnull=False).order_by("pk")
    total, done, last = images.count(), 0, 0
    while batch := list(images.filter(pk__gt=last).values_list("pk", flat=True)[:_BATCH]):
        with run.fenced():
            refresh_risk(batch)
        done, last = done + len(batch), batch[-1]
        run.progress(done, total, "images")
    run.progress(done, total)
