"""Record the results of a worker for one job of a wave. The worker calls them inside its fenced transaction."""

from __future__ import annotations

from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import ImageRebuilt
from lifecycle.core import clock
from lifecycle.evidence.findings import diff_of_images, matches_of_images
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe
from lifecycle.rebuild.services.progress import OPEN_STATES, advance, move
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import platform_ids

State = RebuildJob.State


def begin(job_id: int, *, node_id: str, recipe: Recipe | None = None) -> RebuildJob:
    """Mark a job as building, with `recipe` or the planned one. Changes nothing if an earlier attempt did so.

    A job of a cancelled wave is cancelled instead.
    """
    job = _lock_job(job_id)
    if job.wave.state == RebuildWave.State.CANCELLED:
        _cancel(job)
    elif job.state == State.WAITING:
        began = {"node_id": node_id, "recipe": recipe or job.recipe, "started_at": clock.now()}
        move(job, State.BUILDING, attempts=job.attempts + 1, **began)
    return job


def stop_if_cancelled(job_id: int) -> bool:
    """Cancel a job whose wave was cancelled, and return whether it was. Call it before irreversible steps."""
    job = _lock_job(job_id)
    if job.wave.state != RebuildWave.State.CANCELLED:
        return False
    _cancel(job)
    return True


def _cancel(job: RebuildJob) -> None:
    if job.state in OPEN_STATES:
        move(job, State.CANCELLED)


def built(job_id: int, image: Image, *, method: str, reason: str) -> RebuildJob:
    """Record the result of a build. If the digest is still the old one, the job becomes `unchanged`."""
    job = _lock_job(job_id)
    if job.state != State.BUILDING:
        return job
    if image.pk == job.old_image_id:
        move(job, State.UNCHANGED, new_image=image, method=method, method_reason=reason)
        advance(job.wave)
    else:
        move(job, State.SCANNING, new_image=image, method=method, method_reason=reason)
    return job


def unchanged(job_id: int, *, reason: str, image: Image | None = None) -> None:
    """Record that there is nothing to rebuild: no base changed, or another user moved the tag to `image`."""
    job = _lock_job(job_id)
    if job.state in (State.BUILDING, State.SCANNING):
        move(job, State.UNCHANGED, method_reason=reason, new_image=image or job.old_image)
        advance(job.wave)


def may_replace(job: RebuildJob, digest: str) -> bool:
    """Return whether a job can move its tag away from `digest`: from the image it rebuilds, or an older wave's result.

    Any other image was tagged by a user on purpose, so the tag is kept.
    """
    own = {job.old_image.digest, job.new_image.digest if job.new_image else ""}
    earlier = RebuildJob.objects.filter(
        repository=job.repository_id, tag=job.tag, wave_id__lt=job.wave_id, new_image__digest=digest
    )
    return digest in own or earlier.exists()


def finish(job_id: int) -> None:
    """Compare the scanned result with the old image, and advance the wave."""
    job = _lock_job(job_id)
    if job.state != State.SCANNING or job.new_image is None:
        return
    if job.wave.state == RebuildWave.State.CANCELLED:
        _cancel(job)
        return
    changes = diff_of_images(job.old_image, job.new_image).advisories
    open_now = changes.new | changes.same
    move(
        job,
        State.DONE,
        findings_before=len(_findings(job.old_image)),
        findings_after=len(_findings(job.new_image)),
        fixed=sorted(changes.fixed),
        introduced=sorted(changes.new),
        still_open=sorted(open_now.intersection(job.would_fix or ())),
        remaining_count=len(changes.same),
    )
    audit.record(
        Action.IMAGE_REBUILT, actor=job.wave.confirmed_by or job.wave.planned_by, subject=job,
        repository=job.repository, team=job.repository.team, image=job.new_image,
        details=ImageRebuilt(old=job.old_image.digest, method=job.method),
    )  # fmt: skip
    advance(job.wave)


def _findings(image: Image) -> set[tuple[str, str]]:
    """Return the (purl, vulnerability) pairs of an image; a vulnerability in two feeds counts once."""
    return {(match.package.purl, match.advisory.vulnerability) for match in matches_of_images(platform_ids(image))}


def fail(job_id: int, *, why: str) -> None:
    """Record a failure. Derived images are blocked, and all other images continue."""
    job = _lock_job(job_id)
    if job.state not in OPEN_STATES:
        return
    if job.wave.state == RebuildWave.State.CANCELLED:
        _cancel(job)
        return
    if job.state == State.WAITING:  # it failed before its build began
        move(job, State.BUILDING, started_at=clock.now(), attempts=job.attempts + 1)
    move(job, State.FAILED, problem=why[:2000])
    audit.record(
        Action.IMAGE_REBUILD_FAILED, actor=job.wave.confirmed_by or job.wave.planned_by, subject=job, outcome="failed",
        reason=why[:300], repository=job.repository, team=job.repository.team, image=job.old_image,
    )  # fmt: skip
    blocked = [job]
    while blocked:
        parent = blocked.pop()
        for child in parent.children.filter(state=State.WAITING):
            move(child, State.BLOCKED, problem="Its base could not be rebuilt.")
            blocked.append(child)
    advance(job.wave)


def _lock_job(job_id: int) -> RebuildJob:
    """Return a job with its wave's row locked, so that of two parents that finish at once, one queues their child."""
    job = RebuildJob.objects.select_related("repository__team", "old_image").get(pk=job_id)
    job.wave = RebuildWave.objects.select_for_update().select_related("repository__team").get(pk=job.wave_id)
    job.refresh_from_db(fields=["state"])
    return job
