"""The worker's part of a wave: make one image under its own tag, wait for its scan, then move the real tag.

A second run of the same job is safe at every point, also after a kill: result names depend on the inputs, and every
write uses `run.fenced()`.
"""

from __future__ import annotations

from typing import Final

from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import refuse_if
from lifecycle.evidence.findings import is_matching
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs.handlers import JobRun, Postponed
from lifecycle.lineage.services import declare_base
from lifecycle.oci.client import RegistryClient
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.rebuild import making, queries, services
from lifecycle.rebuild.bases import bases_of, has_changed_base
from lifecycle.rebuild.models import RebuildJob
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, TagEvent

State = RebuildJob.State
SCAN_POLL_S: Final = 2.0


def run_job(run: JobRun) -> None:
    """Rebuild one image as far as possible now; raises Postponed while its result is being scanned.

    Raises NotPermitted when the actor no longer has the right, and the errors of `making.make_image`.
    """
    job = _job(run)
    if job.state not in services.OPEN_STATES:
        return
    with run.fenced():
        if services.stop_if_cancelled(job.pk):
            return
    services.require_right(job, run.job.actor)
    if job.state in (State.WAITING, State.BUILDING):
        _make(run, job)
        job = _job(run)
    if job.state != State.SCANNING or job.new_image is None:
        return
    if job.new_image.scanned_at is None:
        if job.new_image.scan_problem:
            with run.fenced():
                services.fail(job.pk, why=f"The result could not be scanned: {job.new_image.scan_problem}")
            return
        raise Postponed("The result is being scanned.", seconds=SCAN_POLL_S)
    if is_matching([job.new_image.pk]):  # otherwise, some findings would be missing
        raise Postponed("The packages of the result are being matched.", seconds=SCAN_POLL_S)
    if not _move_tag(run, job, job.new_image):
        return
    with run.fenced():
        services.finish(job.pk)


def _job(run: JobRun) -> RebuildJob:
    rows = RebuildJob.objects.select_related(
        "wave__new_base", "wave__repository", "repository__registry", "repository__team", "recipe", "old_image",
        "new_image",
    )  # fmt: skip
    return rows.get(pk=run.job.subject_id)


def _make(run: JobRun, job: RebuildJob) -> None:
    """Make the image, store its rows, and set the job to `scanning`, or to `unchanged` when there is nothing to do."""
    client = client_for(job.repository.registry)
    # Use the current recipe, which may be newer than the plan. A second attempt uses the recipe of the first.
    recipe = job.recipe if job.state == State.BUILDING else queries.current_recipe(job.repository)
    bases = bases_of(client, job, recipe, actor=run.job.actor)
    for base in Image.objects.filter(digest__in=[pinned.partition("@")[2] for pinned in bases.values()]):
        refuse_if(why_quarantined(base))
    node_id = making.node_id_of(job, recipe, bases)
    with run.fenced():
        job = services.begin(job.pk, node_id=node_id, recipe=recipe)
    if job.state != State.BUILDING:
        return
    job = _job(run)
    if _keep_moved_tag(run, client, job):
        return
    if not has_changed_base(job, bases.values()):
        with run.fenced():
            services.unchanged(job.pk, reason="None of its bases changed.")
        return
    tag = making.result_tag(node_id)
    made = making.make_image(run, client, job, bases, tag=tag)
    run.check()
    image = ingest_manifest(
        job.repository.registry_id, job.repository.name, made.digest.text, tag=tag,
        actor_name=run.job.actor.username, via=TagEvent.Via.REBUILD, alive=run.check,
    )  # fmt: skip
    used = bases if made.method == RebuildJob.Method.REBASE or (recipe and recipe.base_references) else {}
    base_images = Image.objects.filter(digest__in=[reference.partition("@")[2] for reference in used.values()])
    with run.fenced():
        for base in base_images:
            if image.pk != base.pk and image.kind == base.kind == Image.Kind.MANIFEST:
                declare_base(image, base, actor=run.job.actor)
        services.built(job.pk, image, method=made.method, reason=made.reason)


def _keep_moved_tag(run: JobRun, client: RegistryClient, job: RebuildJob) -> bool:
    """If another user moved the tag since the plan, end the job as `unchanged` and return True.

    The tag is not changed. Derived images in the wave are built on the image that it points at now.
    """
    current = client.resolve(job.repository.name, job.tag)
    if current is None:
        raise NotFound(f"The tag {job.tag} was deleted during the rebuild.")
    if services.may_replace(job, current.digest.text):
        return False
    reason = f"The tag {job.tag} was moved by another user during the rebuild, and was not changed."
    run.log(reason)
    image = ingest_manifest(
        job.repository.registry_id, job.repository.name, current.digest.text, tag=job.tag, alive=run.check
    )
    with run.fenced():
        services.unchanged(job.pk, reason=reason, image=image)
    return True


def _move_tag(run: JobRun, job: RebuildJob, image: Image) -> bool:
    """Move the job's tag to its result, and return whether it points at the result now.

    Returns False if another user moved the tag since the plan, or if the wave was cancelled.
    """
    client = client_for(job.repository.registry)
    name = job.repository.name
    if _keep_moved_tag(run, client, job):
        return False
    with run.fenced():
        if services.stop_if_cancelled(job.pk):
            return False
    content = client.get_manifest(name, image.digest)
    run.check()
    client.put_manifest(name, job.tag, content.content, content.media_type)
    ingest_manifest(
        job.repository.registry_id, name, image.digest, tag=job.tag, actor_name=run.job.actor.username,
        via=TagEvent.Via.REBUILD, alive=run.check,
    )  # fmt: skip
    return True
