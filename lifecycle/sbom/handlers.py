"""What a worker does for a SCAN job: one image, once in its life."""

from __future__ import annotations

from typing import Final

from accounts.verbs import Verb
from lifecycle import events
from lifecycle.authority.rights import require
from lifecycle.core import clock
from lifecycle.core.errors import LifecycleError, RegistryUnavailable
from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.core.types import Digest
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.models import Job
from lifecycle.oci.client import BlobUnknown, ManifestUnknown
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.sbom import scanner, services
from lifecycle.sbom.kinds import SCAN

_OUTAGE_S: Final = 3600  # how long a registry may be away before that counts against the scan
_PAUSE_MAX_S: Final = 60


def _gave_up(job: Job) -> None:
    image = Image.objects.filter(pk=job.subject_id).first()
    if image is not None:
        services.note_problem(image, job.last_error or "The scan did not finish.")


@handler(SCAN, gave_up=_gave_up)
def scan(run: JobRun) -> None:
    """Pull the subject by digest, list what is inside, store it. An image that was scanned stays as it is."""
    image = Image.objects.filter(pk=run.job.subject_id, kind=Image.Kind.MANIFEST).first()
    if image is None or image.scanned_at is not None:
        run.log("Nothing to do: scanned before.")
        return
    try:
        content = _read_anywhere(run, image)
    except RegistryUnavailable as error:
        waited_s = (clock.now() - run.job.created_at).total_seconds()
        if waited_s > _OUTAGE_S:
            raise  # counts as an attempt, so that the image's page says in the end what is wrong
        raise Postponed(str(error), seconds=min(max(waited_s / 2, 2), _PAUSE_MAX_S)) from error
    except LifecycleError as error:
        with run.fenced():
            services.note_problem(image, error.message)
        raise
    with run.fenced():
        stored = services.store({image.pk: content}, actor=run.job.actor)
    run.progress(1, 1, f"{len(content.packages)} packages, {len(stored.new_package_ids)} seen for the first time")


def _places(image: Image) -> list[RepositoryImage]:
    """Return where the image can be pulled from, the managed registry first.

    A registry that an inventory file merely named (ingest/handlers.py) is asked only where no other holds the image.
    """
    rows = RepositoryImage.objects.select_related("repository__registry", "repository__team")
    places = list(rows.filter(image=image, removed_at=None).order_by("-repository__registry__is_managed", "id"))
    ours = [place for place in places if place.repository.registry.is_ours]
    return ours or places


def _read_anywhere(run: JobRun, image: Image) -> services.Content:
    unknown: LifecycleError = scanner.ScanFailed("The image is in no repository any more.")
    for place in _places(image):
        require(run.job.actor, Verb.IMAGE_SCAN, repository=place.repository)
        try:
            return _read(run, image, place)
        except (ManifestUnknown, BlobUnknown) as error:
            run.log(f"Not in {place.repository}: {error.message}")
            unknown = error
    raise unknown


def _read(run: JobRun, image: Image, place: RepositoryImage) -> services.Content:
    name = place.repository.name
    client = client_for(place.repository.registry)
    with scratch_folder("scan") as scratch:
        layout = scratch / "image"
        layout.mkdir()
        run.progress(0, 3, "Pulling")
        served = client.get_manifest(name, Digest.parse(image.digest).text)
        layers = scanner.write_layout(client, name, served, layout, alive=run.check)
        run.progress(1, 3, "Listing packages")
        document = scanner.run_syft(layout, scratch, run.check)
        run.progress(2, 3, "Finding the layer of each package")
        diff_ids = list(image.layers.order_by("position").values_list("diff_id", flat=True))
        return scanner.read_document(document, diff_ids, layers)


@subscribe(events.ImageIngested)
def scan_new_image(event: events.ImageIngested) -> None:
    """Scan a new platform manifest."""
    services.queue_scan(event.image_id)


@subscribe(events.UnscannedImagePushed)
def scan_again(event: events.UnscannedImagePushed) -> None:
    """Retry a failed scan: the image may have been in no repository then."""
    services.queue_scan(event.image_id)
