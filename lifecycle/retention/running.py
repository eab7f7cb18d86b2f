"""The jobs of retention: delete the images of a confirmed plan batch by batch, and put back what was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_retention import RetentionFinished
from lifecycle.core import clock
from lifecycle.core.errors import RegistryRefused
from lifecycle.core.reasons import refuse_if
from lifecycle.core.states import move_row
from lifecycle.core.types import Digest
from lifecycle.ingest import services as ingest
from lifecycle.ingest.writing import forget_manifest
from lifecycle.jobs.handlers import JobRun
from lifecycle.jobs.models import Job
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, TagEvent
from lifecycle.retention.constants import BATCH, COLLECT
from lifecycle.retention.models import RetentionEntry, RetentionPlan
from lifecycle.retention.queries import repositories_of
from lifecycle.retention.services import judge_now, lock_repositories, reasons_of, restorable_of, why_not_in

# An index before its platforms, and what refers to an image last: after a kill, nothing points at what is gone.
_ORDER: Final = {Image.Kind.INDEX.value: 0, Image.Kind.MANIFEST.value: 1, Image.Kind.ARTIFACT.value: 2}


def run_plan(run: JobRun) -> None:
    """Delete the images of a plan. Twice is safe: each batch is judged again, and what is gone stays gone."""
    plan = RetentionPlan.objects.select_related("team", "repository").get(pk=run.job.subject_id)
    if plan.state != RetentionPlan.State.DELETING:
        run.log(f"Nothing to do: {plan} is {plan.state}.")
        return
    total = plan.entries.exclude(state=RetentionEntry.State.KEEP).count()
    while batch := _next_batch(run, plan):
        for entry in batch:
            _delete(run, entry)
        left = plan.entries.filter(state=RetentionEntry.State.DELETE).count()
        run.progress(total - left, total, f"{total - left} of {total} images done")
    with run.fenced():
        _finish(plan, RetentionPlan.State.DONE)
    run.log(COLLECT)


def _next_batch(run: JobRun, plan: RetentionPlan) -> list[RetentionEntry]:
    """Return the next images to delete. Those that must be kept now are marked, under the lock of the repositories."""
    with run.fenced():
        rows = plan.entries.filter(state=RetentionEntry.State.DELETE).select_related(
            "image", "repository__registry", "repository__team", "repository__environment"
        )
        todo = sorted(rows.defer("image__manifest", "image__config"), key=lambda row: (_ORDER[row.image.kind], row.pk))
        if not todo:
            return []
        judged = judge_now(lock_repositories(plan), accept_unknown_runtime=plan.accept_unknown_runtime)
        tags = {row.key: list(row.tags) for row in judged.facts}
        batch: list[RetentionEntry] = []
        for entry in todo:
            judgement = judged.judgements.get((entry.repository_id, entry.image_id))
            if judgement is not None and judgement.is_kept:
                entry.state, entry.reasons = RetentionEntry.State.KEPT, reasons_of(judgement)
                entry.save(update_fields=["state", "reasons"])
            elif len(batch) < BATCH:
                refuse_if(why_not_in(run.job.actor, entry.repository))
                # After a kill, the image can be gone from our rows while its entry is not done: its tags stay known.
                entry.tags = tags.get((entry.repository_id, entry.image_id), entry.tags)
                entry.save(update_fields=["tags"])
                batch.append(entry)
        return batch


def _delete(run: JobRun, entry: RetentionEntry) -> None:
    client_for(entry.repository.registry).delete_manifest(entry.repository.name, Digest.parse(entry.image.digest))
    with run.fenced():
        forget_manifest(entry.repository, entry.image.digest, actor=run.job.actor)
        entry.state, entry.deleted_at = RetentionEntry.State.DELETED, clock.now()
        entry.save(update_fields=["state", "deleted_at"])


def give_up(job: Job) -> None:
    """Mark a plan as failed, because its job failed for good or was cancelled."""
    plan = RetentionPlan.objects.select_for_update(of=("self",)).filter(pk=job.subject_id).first()
    if plan is not None and plan.state == RetentionPlan.State.DELETING:
        _finish(plan, RetentionPlan.State.FAILED, failure=job.last_error or "Somebody cancelled the job.")


def _finish(plan: RetentionPlan, state: str, *, failure: str = "") -> None:
    move_row(plan, state, finished_at=clock.now(), failure=failure)
    done = plan.entries.filter(state=RetentionEntry.State.DELETED).count()
    kept = plan.entries.filter(state=RetentionEntry.State.KEPT).count()
    audit.record(
        Action.RETENTION_FINISHED, actor=system_user(), subject=plan, team=plan.team, repository=plan.repository,
        details=RetentionFinished(str(plan), done, kept),
    )  # fmt: skip


def run_restore(run: JobRun) -> None:
    """Put back the manifests of a plan, then their tags that are free. Twice is safe."""
    plan = RetentionPlan.objects.select_related("team", "repository").get(pk=run.job.subject_id)
    repositories = {row.pk: row for row in repositories_of(plan)}
    entries = restorable_of(plan).select_related("image")
    if wanted := run.job.payload.get("digests"):
        entries = entries.filter(image__digest__in=wanted)
    rows = sorted(entries, key=lambda row: (-_RESTORE[row.image.kind], row.pk))
    for number, entry in enumerate(rows, 1):
        repository = repositories[entry.repository_id]
        refuse_if(why_not_in(run.job.actor, repository))
        problem = _put(client_for(repository.registry), repository, entry, run)
        with run.fenced():
            entry.state = RetentionEntry.State.LOST if problem else RetentionEntry.State.RESTORED
            entry.note = problem[:500]
            entry.save(update_fields=["state", "note"])
        run.progress(number, len(rows), f"{number} of {len(rows)} images")


# Platforms before their index, which the registry checks; artifacts first, because an index can have them too.
_RESTORE: Final[Mapping[str, int]] = {
    Image.Kind.ARTIFACT.value: 2,
    Image.Kind.MANIFEST.value: 1,
    Image.Kind.INDEX.value: 0,
}


def _put(client: RegistryClient, repository: Repository, entry: RetentionEntry, run: JobRun) -> str:
    """Put one manifest and its free tags back; return why it is impossible, "" when it is done."""
    image = entry.image
    content = bytes(image.manifest)
    if not content:
        return "Its manifest is not stored."
    try:
        client.put_manifest(repository.name, image.digest, content, image.media_type)
        free = [tag for tag in entry.tags if client.resolve(repository.name, tag) is None]
        for tag in free:
            client.put_manifest(repository.name, tag, content, image.media_type)
        for tag in free or [None]:
            ingest.ingest_manifest(
                repository.registry_id, repository.name, image.digest, tag=tag, via=TagEvent.Via.CRAWL,
                actor_name=run.job.actor.username, client=client, alive=run.check,
            )  # fmt: skip
    except (RegistryRefused, ManifestUnknown) as error:
        return f"The registry refused it: {error.message} Perhaps its collector has removed the layers."
    taken = [tag for tag in entry.tags if tag not in free]
    if taken:
        run.log(f"{image.short_digest}: {', '.join(taken)} now names another image, and stays there.")
    return ""
