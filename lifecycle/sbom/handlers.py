"""The handler of SCAN jobs, and the events that queue scans. Each image is scanned once, and again when a user asks."""

from __future__ import annotations

from typing import Final

from django.conf import settings

from accounts.verbs import Verb
from lifecycle import events
from lifecycle.authority.rights import may, require
from lifecycle.core import clock
from lifecycle.core.errors import DiskFull, LifecycleError, RegistryUnavailable
from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.core.types import Digest
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.oci.client import BlobUnknown, ManifestUnknown
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.sbom import rescans, scanner, services
from lifecycle.sbom.clamd import Clamd
from lifecycle.sbom.contents import ContentReader
from lifecycle.sbom.kinds import SCAN

_OUTAGE_S: Final = 3600  # longest outage of a registry that does not count as a failed attempt of the scan
_PAUSE_MAX_S: Final = 60


def _gave_up(job: Job) -> None:
    image = Image.objects.filter(pk=job.subject_id).first()
    if image is not None:
        services.note_problem(image, job.last_error or "The scan did not finish.")


@handler(SCAN, gave_up=_gave_up)
def scan(run: JobRun) -> None:
    """Pull the image by digest, list its packages and store them.

    An image that is already scanned is not changed, unless a user asked to scan it again (`services.rescan`).
    """
    again = run.job.payload.get("again") is True
    image = Image.objects.filter(pk=run.job.subject_id, kind=Image.Kind.MANIFEST).first()
    if image is None or (services.is_scanned(image) and not again):
        run.log("Nothing to do. The image is already scanned, or no longer exists.")
        return
    if why := run.job.payload.get("why"):
        run.log(f"Scanned again: {why}.")
    try:
        content = _read_anywhere(run, image)
    except RegistryUnavailable as error:
        waited_s = (clock.now() - run.job.created_at).total_seconds()
        if waited_s > _OUTAGE_S:
            raise  # counts as an attempt, so that the image page finally shows the problem
        raise Postponed(str(error), seconds=min(max(waited_s / 2, 2), _PAUSE_MAX_S)) from error
    except DiskFull:
        raise  # no fault of the image: the job is retried, and the image has no problem before the last attempt
    except LifecycleError as error:
        with run.fenced():
            services.note_problem(image, error.message)
        raise
    with run.fenced():
        stored = services.store({image.pk: content}, actor=run.job.actor, replaces=again)
    count = len(content.packages)
    run.progress(1, 1, f"{count} package{'' if count == 1 else 's'}, {len(stored.new_package_ids)} of them new")


def _sources(image: Image) -> list[RepositoryImage]:
    """Return the repositories that the image can be pulled from, those of the managed registry first.

    A registry that only an inventory file names (ingest/handlers.py) is used only when no other registry has the image.
    """
    rows = RepositoryImage.objects.select_related("repository__registry", "repository__team")
    sources = list(rows.filter(image=image, removed_at=None).order_by("-repository__registry__is_managed", "id"))
    ours = [source for source in sources if source.repository.registry.is_ours]
    return ours or sources


def _read_anywhere(run: JobRun, image: Image) -> services.Content:
    problem: LifecycleError = scanner.ScanFailed("The image is no longer in any repository. Push it again.")
    sources = _sources(image)
    # A user who asked for the scan may hold image.scan on some of the repositories only.
    allowed = [row for row in sources if may(run.job.actor, Verb.IMAGE_SCAN, repository=row.repository)]
    for source in allowed or sources:
        require(run.job.actor, Verb.IMAGE_SCAN, repository=source.repository)
        try:
            return _read(run, image, source)
        except (ManifestUnknown, BlobUnknown) as error:
            run.log(f"Not in {source.repository}: {error.message}")
            problem = error
    raise problem


def _read(run: JobRun, image: Image, source: RepositoryImage) -> services.Content:
    name = source.repository.name
    client = client_for(source.repository.registry)
    with scratch_folder("scan") as scratch:
        layout = scratch / "image"
        layout.mkdir()
        run.progress(0, 3, "Pulling")
        served = client.get_manifest(name, Digest.parse(image.digest).text)
        layers = scanner.write_layout(client, name, served, layout, alive=run.check)
        run.progress(1, 3, "Listing packages")
        document = scanner.run_syft(layout, scratch, run.check)
        run.progress(2, 3, "Finding the layer of each package, checking files")
        diff_ids = list(image.layers.order_by("position").values_list("diff_id", flat=True))
        clamd = Clamd(settings.CLAMD) if settings.CLAMD else None
        return scanner.read_document(document, diff_ids, layers, ContentReader(clamd=clamd, alive=run.check))


@subscribe(events.ImageIngested)
def scan_new_image(event: events.ImageIngested) -> None:
    """Scan a new platform manifest."""
    services.queue_scan(event.image_id)


@subscribe(events.UnscannedImagePushed)
def scan_again(event: events.UnscannedImagePushed) -> None:
    """Retry a failed scan after a push, because the image may not have been in any repository before."""
    services.queue_scan(event.image_id)


@every(60, "rescans")
def queue_rescans() -> None:
    """Queue a few scans that would give more."""
    rescans.queue_rescans()
