"""What people change in a repository: its description, its tags and its images. Deletions run as jobs."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import DeletionRequested, RepositoryDescribed
from lifecycle.authority.access import image_in, lock_repository
from lifecycle.authority.rights import may, require
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.providers import Question
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.types import Digest
from lifecycle.ingest.kinds import DELETE
from lifecycle.ingest.protection import is_protected
from lifecycle.ingest.writing import forget_manifest, forget_tag
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun
from lifecycle.jobs.models import Job
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, IndexEntry, Repository, RepositoryImage, Tag

DESCRIPTION_MAX: Final = 300  # characters
_NO_TAG: Final = "Tag not found, or you don't have access."

# Arguments: the repository, the image. The answer is the reason why the image cannot be deleted there now, or None.
blocks_deletion: Final[Question[[Repository, Image], Reason | None]] = Question("does a process still need this image?")


@transaction.atomic
def describe_repository(repository_id: int, description: str, *, actor: User) -> Repository:
    """Change the description of a repository. Raises NotFound, NotPermitted, Malformed."""
    repository = lock_repository(actor, repository_id, Verb.IMAGE_AMEND)
    text = " ".join(description.split())
    if len(text) > DESCRIPTION_MAX or "\0" in text:
        raise Malformed(f"Enter at most {DESCRIPTION_MAX} characters.")
    if text != repository.description:
        before, repository.description = repository.description, text
        repository.save(update_fields=["description"])
        audit.record(
            Action.REPOSITORY_DESCRIBED, actor=actor, subject=repository, repository=repository,
            details=RepositoryDescribed(before=before, after=text),
        )  # fmt: skip
    return repository


def _why_not_by_hand(repository: Repository) -> Reason | None:
    if repository.environment_id is not None:
        return Reason("Only promotions change an environment. Promote another image instead.", Malformed)
    if repository.is_vault:
        return Reason("The image is withdrawn. It leaves this repository when its quarantine is lifted.", Malformed)
    return None


def why_not_delete(actor: User, repository: Repository, image: Image) -> Reason | None:
    """Return why `actor` cannot delete an image from `repository` now, None when they can."""
    if reason := _why_not_by_hand(repository):
        return reason
    decision = may(actor, Verb.IMAGE_DELETE, repository=repository)
    if not decision:
        return Reason(decision.reason)
    parent = IndexEntry.objects.filter(
        child=image, index__repository_images__repository=repository, index__repository_images__removed_at=None
    ).select_related("index").first()  # fmt: skip
    if parent is not None:
        return Reason(f"It is a platform of the index {parent.index.short_digest}. Delete the index first.", Conflict)
    tags = Tag.objects.filter(repository=repository, image=image).select_related("repository")
    protected = sorted(tag.name for tag in tags if is_protected(tag))
    if protected and not may(actor, Verb.IMAGE_AMEND, repository=repository):
        return Reason(f"You need image.amend: the tag {protected[0]} is protected. Ask a maintainer of the repository.")
    return blocks_deletion.ask(repository, image)


def why_not_delete_tag(actor: User, tag: Tag) -> Reason | None:
    """Return why `actor` cannot delete a tag now, None when they can. Its image stays."""
    repository = tag.repository
    if reason := _why_not_by_hand(repository):
        return reason
    decision = may(actor, Verb.IMAGE_DELETE, repository=repository)
    if decision and is_protected(tag):
        decision = may(actor, Verb.IMAGE_AMEND, repository=repository)
        return None if decision else Reason(f"The tag is protected. {decision.reason}")
    return None if decision else Reason(decision.reason)


@transaction.atomic
def delete_image(repository_id: int, digest: str, *, actor: User) -> Job:
    """Queue the deletion of an image and its tags in the registry, and return the job.

    Raises NotFound, NotPermitted, Malformed for the repository of an environment, or Conflict while it is needed.
    """
    repository = lock_repository(actor, repository_id, Verb.IMAGE_DELETE)
    image = image_in(repository, digest).image
    refuse_if(why_not_delete(actor, repository, image))
    return _queue(repository, image, actor, tag="")


@transaction.atomic
def delete_tag(repository_id: int, name: str, *, actor: User) -> Job:
    """Queue the deletion of one tag in the registry, and return the job. Raises like `delete_image`."""
    repository = lock_repository(actor, repository_id, Verb.IMAGE_DELETE)
    tag = Tag.objects.filter(repository=repository, name=name, image__isnull=False).select_related("image").first()
    if tag is None or tag.image is None:
        raise NotFound(_NO_TAG)
    tag.repository = repository
    refuse_if(why_not_delete_tag(actor, tag))
    return _queue(repository, tag.image, actor, tag=name)


def _queue(repository: Repository, image: Image, actor: User, *, tag: str) -> Job:
    audit.record(
        Action.IMAGE_DELETION_REQUESTED, actor=actor, subject=image, repository=repository, image=image,
        details=DeletionRequested(tag=tag),
    )  # fmt: skip
    return jobs.queue(
        DELETE, subject_id=repository.pk, actor=actor, payload={"digest": image.digest, "tag": tag},
        dedupe_key=f"{repository.pk}:{image.digest}:{tag}",
    )  # fmt: skip


def run_deletion(run: JobRun) -> None:
    """Delete an image or a tag in the registry, then in our rows. Twice is safe: what is gone stays gone.

    The rights are checked again, and so is the tag: one that has moved on is not deleted.
    """
    rows = Repository.objects.select_related("registry", "team", "environment")
    repository = rows.get(pk=run.job.subject_id)
    digest, name = str(run.job.payload["digest"]), str(run.job.payload.get("tag", ""))
    require(run.job.actor, Verb.IMAGE_DELETE, repository=repository, environment=repository.environment)
    client = client_for(repository.registry)
    if name:
        tag = Tag.objects.filter(repository=repository, name=name).select_related("repository", "image").first()
        if tag is None or tag.image is None or tag.image.digest != digest:
            run.log("Nothing to do. The tag points to another image, or is gone.")
            return
        refuse_if(why_not_delete_tag(run.job.actor, tag))
        now = client.resolve(repository.name, name)
        if now is not None and now.digest.text != digest:
            run.log("The tag has moved in the registry. It is kept.")
            return
        client.delete_tag(repository.name, name)
        with run.fenced():
            forget_tag(repository, name, expected_image_id=tag.image_id, actor=run.job.actor)
        run.progress(1, 1, f"Deleted {repository}:{name}")
        return
    member = RepositoryImage.objects.filter(repository=repository, image__digest=digest, removed_at=None)
    present = member.select_related("image").first()
    if present is not None:
        refuse_if(why_not_delete(run.job.actor, repository, present.image))
    client.delete_manifest(repository.name, Digest.parse(digest))
    with run.fenced():
        forget_manifest(repository, digest, actor=run.job.actor)
    run.progress(1, 1, f"Deleted {repository}@{digest[:19]}…")
