"""Withdraw a quarantined image from the managed registry, and put it back after the release.

A token of the registry is for a repository, not for a digest. So a copy with its referrers goes to a repository from
which only users with image.quarantine can pull (the vault), and the image is deleted by digest everywhere else. The
rows (`Withdrawal`) are written when the quarantine begins. One job does what is left of either, so it can be killed at
any step; no call of the registry is inside a transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from django.db.models import F, Q, QuerySet

from accounts.models import Team, User
from accounts.queries import system_user
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import WithdrawalDetails
from lifecycle.core import clock
from lifecycle.core.errors import Conflict
from lifecycle.core.states import move_row
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment
from lifecycle.ingest.services import ingest_manifest
from lifecycle.ingest.writing import forget_manifest
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, Postponed
from lifecycle.jobs.models import Job
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.oci.copying import copy_by_digest
from lifecycle.quarantine.kinds import WITHDRAW
from lifecycle.quarantine.models import Quarantine, Withdrawal
from lifecycle.quarantine.queries import withdrawing_covers, withdrawn_ids
from lifecycle.registry.clients import client_for
from lifecycle.registry.constants import VAULT_PREFIX
from lifecycle.registry.models import Image, IndexEntry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.registry.services import ensure_managed_registry

State = Withdrawal.State
_IS_VAULT: Final = Q(environment=None) & ~Q(name=F("family"))  # as Repository.is_vault
_INCOMPLETE: Final = "The registry lacks a part of this index, so it cannot be copied. It is not deleted."
_LOST: Final = "The registry did not have it any more, so it cannot be put back."


def begin_withdrawal(row: Quarantine, *, actor: User) -> None:
    """Note what is where, and queue the job. In the transaction in which pulls are to be stopped. Raises Conflict."""
    if (
        Team.objects.filter(slug=VAULT_PREFIX).exists()
        or Environment.objects.filter(registry=None, prefix=VAULT_PREFIX).exists()
    ):
        raise Conflict(
            f"A team or an environment is named {VAULT_PREFIX}, and withdrawn images go to repositories below it. "
            "Quarantine the image without withdrawing it."
        )
    members = _members(withdrawn_ids(row.image_id))
    tags: dict[tuple[int, int | None], list[str]] = {}
    for tag in Tag.objects.filter(image__in={member.image_id for member in members}).order_by("name"):
        tags.setdefault((tag.repository_id, tag.image_id), []).append(tag.name)
    Withdrawal.objects.bulk_create(
        Withdrawal(
            quarantine=row, repository=member.repository, image=member.image,
            tags=tags.get((member.repository_id, member.image_id), []),
        )
        for member in members
    )  # fmt: skip
    queue_withdrawal(row, actor=actor)


def queue_withdrawal(row: Quarantine, *, actor: User) -> Job:
    """Queue the job that withdraws the image, or puts it back when the quarantine is lifted."""
    return jobs.queue(WITHDRAW, subject_id=row.pk, actor=actor, dedupe_key=str(row.pk))


def undo_pushes(image_ids: Iterable[int]) -> None:
    """Queue the withdrawal of images that came into a repository while a quarantine withdraws them."""
    found = withdrawing_covers(set(image_ids))
    placed = {member.image_id for member in _members(found)}
    for pk in sorted({pk for image_id in placed for pk in found[image_id]}):
        queue_withdrawal(Quarantine.objects.get(pk=pk), actor=system_user())


def run_withdrawal(run: JobRun) -> None:
    """Do what is left: withdraw the image, or put it back when the quarantine was lifted. Twice is safe.

    Its log and progress name no repository: not everybody who sees the job sees all of them.
    """
    same = Job.objects.filter(kind=WITHDRAW.name, subject_id=run.job.subject_id, state=Job.State.RUNNING)
    if same.filter(pk__lt=run.job.pk).exists():
        raise Postponed("Another job still works on this quarantine.")
    row = Quarantine.objects.select_related("image", "created_by", "released_by").get(pk=run.job.subject_id)
    client = client_for(ensure_managed_registry())
    if row.is_live:
        _withdraw(run, row, client)
    else:
        _restore(run, row, client)


def _members(image_ids: Iterable[int]) -> list[RepositoryImage]:
    """Return where images are in the managed registry, outside vaults."""
    rows = RepositoryImage.objects.filter(image__in=set(image_ids), removed_at=None)
    rows = rows.filter(repository__registry__is_managed=True).exclude(repository__in=_vaults())
    return list(
        rows.select_related("repository__registry", "repository__team", "repository__environment", "image")
        .defer("image__manifest", "image__config")
        .order_by("repository__name", "image_id")
    )


def _vaults() -> QuerySet[Repository]:
    return Repository.objects.filter(_IS_VAULT)


def _items(row: Quarantine) -> QuerySet[Withdrawal]:
    rows = row.withdrawals.select_related(
        "repository__registry", "repository__team", "repository__environment", "image"
    )
    return rows.defer("image__manifest", "image__config").order_by("pk")


def _withdraw(run: JobRun, row: Quarantine, client: RegistryClient) -> None:
    pending = list(_items(row).filter(state=State.PENDING))
    for number, item in enumerate(pending):
        run.progress(number, 2 * len(pending), f"Copying {item.image.short_digest}")
        _copy_to_vault(run, item, client)
    noted = {(item.repository_id, item.image_id): item for item in _items(row)}
    places = {key: (item.repository, item.image) for key, item in noted.items() if item.state != State.PENDING}
    for member in _members(withdrawn_ids(row.image_id)):
        key = (member.repository_id, member.image_id)
        if key not in noted:
            places[key] = (member.repository, member.image)
    for number, (key, place) in enumerate(places.items()):
        run.progress(len(places) + number, 2 * len(places), f"Deleting {place[1].short_digest}")
        if not _remove(run, row, client, place, noted.get(key)):
            return


def _copy_to_vault(run: JobRun, item: Withdrawal, client: RegistryClient) -> None:
    """Copy an image with its referrers. An image that is gone is removed already; one that is incomplete stays."""
    name, digest = item.repository.name, item.image.digest
    with run.fenced():
        vault = _vault_of(item.repository)
    try:
        copy_by_digest(client, source_repository=name, target_repository=vault.name, digest=digest, tags=(),
                       alive=run.check)  # fmt: skip
    except ManifestUnknown:
        is_here = client.resolve(name, digest) is not None
        run.log(f"{digest}: {_INCOMPLETE if is_here else _LOST}")
        with run.fenced():
            if is_here:
                Withdrawal.objects.filter(pk=item.pk).update(problem=_INCOMPLETE)
            else:
                move_row(item, State.COPIED, problem=_LOST)
        return
    ingest_manifest(vault.registry_id, vault.name, digest, client=client, alive=run.check)
    with run.fenced():
        move_row(item, State.COPIED, problem="")


def _vault_of(repository: Repository) -> Repository:
    """Return the repository for withdrawn images of a family, and create it when it is new."""
    name = f"{VAULT_PREFIX}/{repository.family}"
    if len(name) > repository.registry.name_max:
        name = f"{VAULT_PREFIX}/{hashlib.sha256(repository.family.encode()).hexdigest()}"
    row, is_new = Repository.objects.get_or_create(
        registry=repository.registry, name=name, defaults={"team": repository.team, "family": repository.family}
    )
    if is_new:
        events.publish(events.RepositoriesCreated((row.pk,)))
    return row


def _remove(
    run: JobRun, row: Quarantine, client: RegistryClient, place: tuple[Repository, Image], item: Withdrawal | None
) -> bool:
    """Delete an image from a repository; return False when the quarantine was lifted meanwhile.

    What is there without a row, or again after it was removed, was pushed after the quarantine began.
    """
    repository, image = place
    run.check()
    if not Quarantine.objects.filter(pk=row.pk, released_at=None).exists():
        return False
    tags = tuple(Tag.objects.filter(repository=repository, image=image).order_by("name").values_list("name", flat=True))
    was_there = client.delete_manifest(repository.name, Digest.parse(image.digest))
    with run.fenced():
        forget_manifest(repository, image.digest, actor=system_user())
        if item is not None and item.state != State.REMOVED:
            move_row(item, State.REMOVED, removed_at=clock.now())
            audit.record(
                Action.QUARANTINE_COPY_REMOVED, actor=system_user(), subject=row, repository=repository, image=image,
                reason=row.reason, details=WithdrawalDetails(digest=image.digest, tags=tuple(item.tags)),
            )  # fmt: skip
        elif was_there:
            audit.record(
                Action.QUARANTINE_PUSH_UNDONE, actor=system_user(), subject=row, repository=repository, image=image,
                reason=row.reason, details=WithdrawalDetails(digest=image.digest, tags=tags),
            )  # fmt: skip
    if client.resolve(repository.name, image.digest) is not None:
        raise Postponed("The image was pushed again.")
    return True


def _restore(run: JobRun, row: Quarantine, client: RegistryClient) -> None:
    left = list(_items(row).exclude(state=State.RESTORED))
    for number, item in enumerate(left):
        run.progress(number, len(left), f"Putting back {item.image.short_digest}")
        if not _hand_over(run, item):
            _put_back(run, row, item, client)
    _empty_vaults(run, row, client)


def _hand_over(run: JobRun, item: Withdrawal) -> bool:
    """Give an image to another live quarantine that withdraws it too; return whether there is one."""
    with run.fenced():
        covers = withdrawing_covers([item.image_id]).get(item.image_id, [])
        others = Quarantine.objects.filter(pk__in=covers).exclude(pk=item.quarantine_id)
        other = others.select_for_update(of=("self",)).select_related("created_by").order_by("pk").first()
        if other is None:
            return False
        has_row = other.withdrawals.filter(repository=item.repository, image=item.image).exists()
        if has_row:
            item.delete()
        else:
            item.quarantine = other
            item.save(update_fields=["quarantine"])
        queue_withdrawal(other, actor=system_user())
        return True


def _put_back(run: JobRun, row: Quarantine, item: Withdrawal, client: RegistryClient) -> None:
    """Copy an image from the vault, and point the tags to it that nobody moved since."""
    repository, digest, tags = item.repository, item.image.digest, list[str]()
    if item.state != State.PENDING and item.problem != _LOST:
        vault = _vaults().filter(registry=repository.registry, family=repository.family).first()
        tags = [tag for tag in item.tags if _is_untouched(item, tag, client)]
        try:
            if vault is not None:
                copy_by_digest(client, source_repository=vault.name, target_repository=repository.name, digest=digest,
                               tags=tags, alive=run.check)  # fmt: skip
        except ManifestUnknown:
            if client.resolve(repository.name, digest) is None:
                run.log(f"{digest}: {_LOST}")
                Withdrawal.objects.filter(pk=item.pk).update(problem=_LOST)
                return
        actor = row.released_by.username if row.released_by else None
        pointed: list[str | None] = [*tags] or [None]
        for tag in pointed:
            ingest_manifest(repository.registry_id, repository.name, digest, tag=tag, actor_name=actor, client=client,
                            alive=run.check)  # fmt: skip
    if _hand_over(run, item):  # quarantined again meanwhile
        return
    with run.fenced():
        was_taken = item.state != State.PENDING
        move_row(item, State.RESTORED, restored_at=clock.now())
        if was_taken:
            audit.record(
                Action.QUARANTINE_COPY_RESTORED, actor=row.released_by, subject=row, repository=repository,
                image=item.image, details=WithdrawalDetails(digest=digest, tags=tuple(tags)),
            )  # fmt: skip


def _is_untouched(item: Withdrawal, name: str, client: RegistryClient) -> bool:
    """Return whether nobody moved a tag since its image was withdrawn. Undone pushes of the image do not count."""
    tag = Tag.objects.filter(repository=item.repository, name=name).first()
    if tag is None:
        return False
    if tag.image_id is None:
        last = TagEvent.objects.filter(tag=tag).order_by("-pk").first()
        if last is not None and last.old_image_id != item.image_id:
            return False
    elif tag.image_id != item.image_id:
        return False
    now = client.resolve(item.repository.name, name)
    return now is None or now.digest.text == item.image.digest


def _empty_vaults(run: JobRun, row: Quarantine, client: RegistryClient) -> None:
    """Delete from the vaults what no withdrawn image there needs any more."""
    items = list(_items(row))
    for family in sorted({item.repository.family for item in items}):
        taken = {item.image_id for item in items if item.repository.family == family}
        copied = _below(taken)
        waiting = Withdrawal.objects.filter(repository__family=family).exclude(state=State.RESTORED)
        needed = _below(set(waiting.values_list("image_id", flat=True)))
        members = RepositoryImage.objects.filter(repository__in=_vaults().filter(family=family), removed_at=None)
        for member in members.filter(image__in=copied - needed).select_related("repository", "image").order_by("pk"):
            run.check()
            client.delete_manifest(member.repository.name, Digest.parse(member.image.digest))
            with run.fenced():
                forget_manifest(member.repository, member.image.digest, actor=system_user())


def _below(image_ids: set[int]) -> set[int]:
    found, new = set(image_ids), set(image_ids)
    while new:
        new = set(IndexEntry.objects.filter(index__in=new).values_list("child", flat=True)) - found
        found |= new
    return found
