"""Deleting a whole repository: what goes with it, what keeps it, and the job that does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.db import transaction
from django.db.models import PROTECT, Sum

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import RepositoryDeleted, RepositoryDeletionRequested
from lifecycle.authority.access import lock_repository
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.types import Digest
from lifecycle.ingest.kinds import DELETE
from lifecycle.ingest.openness import why_not_archive
from lifecycle.ingest.writing import forget_manifest
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun
from lifecycle.jobs.models import Job
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Repository, RepositoryImage, Tag

_ALL: Final = "all"  # key in the payload of the job


def contents_of(repository: Repository) -> dict[str, int]:
    """Return what goes with the repository: tags, images, and the bytes of the images, layers shared or not."""
    held = RepositoryImage.objects.filter(repository=repository, removed_at=None)
    return {
        "tags": Tag.objects.filter(repository=repository, image__isnull=False).count(),
        "images": held.count(),
        "size_bytes": held.aggregate(size=Sum("image__size_bytes"))["size"] or 0,
    }


def kept_by(repository: Repository) -> list[str]:
    """Return what stands on the repository and keeps it, as phrases: "3 promotion requests".

    This is all history that must stay: every row that points to it and is protected in the database.
    """
    phrases = []
    for relation in Repository._meta.related_objects:
        if getattr(relation, "on_delete", None) is not PROTECT:
            continue
        model: Any = relation.related_model
        count = model._base_manager.filter(**{relation.field.name: repository}).count()
        if count:
            names = model._meta.verbose_name_plural if count > 1 else model._meta.verbose_name
            phrases.append(f"{count} {names}")
    return sorted(phrases)


def why_not_delete_repository(actor: User, repository: Repository) -> Reason | None:
    """Return why `actor` cannot delete the whole repository now, None when they can."""
    if reason := why_not_archive(actor, repository):
        return reason
    decision = may(actor, Verb.IMAGE_DELETE, repository=repository)
    if not decision:
        return Reason(decision.reason)
    if repository.protected_tags and not may(actor, Verb.IMAGE_AMEND, repository=repository):
        return Reason("You need image.amend: some of its tags are protected. Ask a maintainer of the repository.")
    if kept := kept_by(repository):
        return Reason(f"It is needed by {', '.join(kept)}. Archive it instead: its history must stay.", Conflict)
    return None


@transaction.atomic
def delete_repository(repository_id: int, *, actor: User, name: str) -> Job:
    """Archive a repository, and queue the deletion of its images in the registry and then of its row; return the job.

    `name` repeats the name of the repository, as a confirmation. Needs team.manage and image.delete. Raises NotFound,
    NotPermitted, Malformed for another name, or Conflict with what keeps it.
    """
    repository = lock_repository(actor, repository_id, Verb.IMAGE_DELETE)
    refuse_if(why_not_delete_repository(actor, repository))
    if name != repository.name:
        raise Malformed(f"Enter the name of the repository, {repository.name}, to confirm.")
    if not repository.is_archived:
        repository.archived_at = clock.now()
        repository.save(update_fields=["archived_at"])
    counts = contents_of(repository)
    audit.record(
        Action.REPOSITORY_DELETION_REQUESTED, actor=actor, subject=repository, repository=repository,
        details=RepositoryDeletionRequested(tags=counts["tags"], images=counts["images"]),
    )  # fmt: skip
    return jobs.queue(
        DELETE,
        subject_id=repository.pk,
        actor=actor,
        payload={_ALL: repository.name},
        dedupe_key=f"{repository.pk}:all",
    )


def is_whole(payload: Mapping[str, Any]) -> bool:
    """Return whether a job of this kind deletes a whole repository."""
    return _ALL in payload


def run_removal(run: JobRun) -> None:
    """Delete every manifest of a repository in the registry, then its row. Twice is safe: what is gone stays gone.

    The rights, and what stands on it, are checked again before the first deletion and before the last.
    """
    repository = Repository.objects.select_related("registry", "team").filter(pk=run.job.subject_id).first()
    if repository is None:
        run.log("Nothing to do. The repository is gone.")
        return
    refuse_if(why_not_delete_repository(run.job.actor, repository))
    held = RepositoryImage.objects.filter(repository=repository, removed_at=None).select_related("image")
    # Indexes before their platforms: registries refuse to delete what an index names.
    rows = sorted(held.order_by("-pk"), key=lambda row: (not row.is_top_level, -row.pk))
    for number, row in enumerate(rows, start=1):
        if repository.registry.is_ours:
            client_for(repository.registry).delete_manifest(repository.name, Digest.parse(row.image.digest))
        with run.fenced():
            forget_manifest(repository, row.image.digest, actor=run.job.actor)
        run.progress(number, len(rows), f"Deleted {row.image.short_digest}")
    with run.fenced():
        locked = Repository.objects.select_for_update(of=("self",)).select_related("team").get(pk=repository.pk)
        refuse_if(why_not_delete_repository(run.job.actor, locked))
        audit.record(
            Action.REPOSITORY_DELETED, actor=run.job.actor, subject=locked, repository=locked,
            details=RepositoryDeleted(name=locked.name, images=len(rows)),
        )  # fmt: skip
        locked.delete()
    run.progress(len(rows), len(rows), f"Deleted {repository}")
