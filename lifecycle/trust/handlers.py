"""The handler of VERIFY jobs, and the events that queue them."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import platform_ids
from lifecycle.trust import attached, sboms, services
from lifecycle.trust.kinds import READ_SBOMS, VERIFY


def _gave_up(job: Job) -> None:
    if Image.objects.filter(pk=job.subject_id).exists():
        services.note_problem(job.subject_id, "The check did not finish. Verify again, or ask an admin for its job.")


@handler(VERIFY, gave_up=_gave_up)
def verify(run: JobRun) -> None:
    """Read the signatures of one image from its registry, verify them, and store the result in place of the last."""
    image = Image.objects.filter(pk=run.job.subject_id).first()
    if image is None or not image.is_content:
        run.log("Nothing to do. The image no longer exists.")
        return
    reads, unread = services.read_signatures(image, alive=run.check)
    with run.fenced():
        counts = services.store_check(image, reads, unread)
        sboms.choose_again([image.pk])
        if any(read.has_sboms for read in reads):
            attached.queue_read(image.pk)
    words = ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "no signatures"
    # Everybody who sees the image sees its jobs, but perhaps not the repository.
    run.progress(1, 1, f"{words}. Not everything could be read." if unread else words)


@handler(READ_SBOMS)
def read_sboms(run: JobRun) -> None:
    """Read the SBOMs that the registry holds of one image, and keep those that are new. Whether one counts is next."""
    image = Image.objects.filter(pk=run.job.subject_id).first()
    if image is None or not image.is_content:
        run.log("Nothing to do. The image no longer exists.")
        return
    count = 0
    for found in attached.read_attached(image, alive=run.check):
        if found.problem:
            run.log(f"{found.object_digest[:19]}: {found.problem}")
            continue
        with run.fenced():
            count += attached.keep(found)
    run.progress(1, 1, f"{count} new SBOM{'' if count == 1 else 's'}")


@subscribe(events.ImageIngested)
def check_new_image(event: events.ImageIngested) -> None:
    """Check a new platform manifest."""
    services.queue_check(event.image_id)


@subscribe(events.BaseDeclared)
def check_new_index(event: events.BaseDeclared) -> None:
    """Check a new index. Platform manifests have their own event."""
    if Image.objects.filter(pk=event.image_id, kind=Image.Kind.INDEX).exists():
        services.queue_check(event.image_id)


@subscribe(events.ArtifactIngested)
def check_new_artifact(event: events.ArtifactIngested) -> None:
    """Check a new Helm chart or another artifact that can be promoted."""
    services.queue_check(event.image_id)


@subscribe(events.ReferrerStored)
def check_again(event: events.ReferrerStored) -> None:
    """Check an image again when something that refers to it arrives. Signatures are usually pushed after the image."""
    subject = Image.objects.filter(digest=event.subject_digest).first()
    if subject is not None and subject.is_content:
        services.queue_check(subject.pk)


@every(60, "signature_checks")
def queue_due_checks() -> None:
    """Queue the checks that a changed source made due."""
    services.queue_due_checks()


@subscribe(events.SbomKept)
def choose_sbom(event: events.SbomKept) -> None:
    """Decide whether the SBOM counts."""
    sboms.choose(event.image_id)


@subscribe(events.PlacesChanged)
def choose_sboms_again(event: events.PlacesChanged) -> None:
    """Decide again: a team that has the images from now on may not trust who sent or signed their SBOMs."""
    for image in Image.objects.only("pk", "kind").filter(pk__in=event.image_ids).order_by("pk"):
        sboms.choose_again(platform_ids(image))


@every(60, "sboms")
def choose_due_sboms() -> None:
    """Decide again about SBOMs, a part of them in each round."""
    sboms.choose_due()
