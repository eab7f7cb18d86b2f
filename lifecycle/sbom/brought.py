"""SBOMs that a person sends or the registry holds: kept beside our own scan, which is never lost.

Which of them decides is for `trust.sboms`: it knows who signed what. It hears of each one by the event SbomKept.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from django.db import transaction
from django.db.models import Q

from accounts.models import Team, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import SbomSent
from lifecycle.authority.access import image_for
from lifecycle.authority.queries import repositories_visible_to, teams_visible_to
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, NotFound, NotPermitted
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.registry.models import Image, Layer, Repository, RepositoryImage
from lifecycle.registry.platforms import platforms_of
from lifecycle.sbom import lists, services
from lifecycle.sbom.documents import Document, read_document
from lifecycle.sbom.models import PackageList, Sbom
from lifecycle.sbom.packages import Package

KEPT_MAX: Final = 20  # brought SBOMs of one image; the oldest one that is not used makes room


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a brought SBOM comes from."""

    kind: PackageList.Kind
    sent_by: User | None = None
    team_ids: Collection[int] = ()
    is_site_wide: bool = False
    repository: Repository | None = None
    object_digest: str = ""


def why_not_send(actor: User, image: Image) -> Reason | None:
    """Return why `actor` cannot send an SBOM of `image`, or withdraw one; None when they can."""
    if RepositoryImage.objects.filter(
        image=image, removed_at=None, repository__in=repositories_visible_to(actor, Verb.IMAGE_SCAN)
    ).exists():
        return None
    return Reason("You need image.scan for the image. Ask a maintainer of its team.", NotPermitted)


def send(digest: str, content: bytes, *, actor: User) -> tuple[PackageList, bool]:
    """Keep an SBOM that `actor` sends for one platform manifest; return it, and whether it is new.

    It decides what packages the image has where the actor may scan (`trust.sboms`).
    The same document again changes nothing, or takes back its withdrawal. Raises NotFound, NotPermitted, Conflict for
    an index with several platforms, DocumentRefused, LimitExceeded.
    """
    image = platform_for(image_for(actor, digest))
    refuse_if(why_not_send(actor, image))
    document = read_document(content)  # before the transaction: a big document takes seconds
    packed = zlib.compress(content, 1)
    with transaction.atomic():
        allowed = repositories_visible_to(actor, Verb.IMAGE_SCAN)
        places = RepositoryImage.objects.filter(image=image, removed_at=None, repository__in=allowed)
        held = {place.repository.team for place in places.select_related("repository__team")}
        if not held:
            raise NotPermitted("You need image.scan for the image. Ask a maintainer of its team.")
        # A right in some repositories decides about none of the team's others, into which the image can be copied.
        teams = sorted(team.pk for team in held if may(actor, Verb.IMAGE_SCAN, team=team))
        origin = Origin(PackageList.Kind.SENT, actor, teams, is_site_wide=actor.is_superuser)
        kept, is_new = keep(image.pk, document, content, packed, origin)
        if is_new:
            audit.record(
                Action.IMAGE_SBOM_SENT,
                actor=actor,
                subject=image,
                image=image,
                details=SbomSent(kept.sbom.digest, kept.sbom.format, kept.package_count, kept.dropped_count),
            )
    return kept, is_new


def platform_for(image: Image) -> Image:
    """Return the platform manifest that an SBOM is about: the image, or the only platform of an index."""
    platforms = platforms_of(image)
    if len(platforms) == 1:
        return platforms[0]
    if not platforms:
        raise Conflict("This digest has no platform that can be scanned.")
    named = ", ".join(f"{one.platform or 'unknown'} {one.digest}" for one in platforms[:10])
    raise Conflict(f"An SBOM is about one platform. Send it to the digest of that platform: {named}.")


@transaction.atomic
def keep(image_id: int, document: Document, content: bytes, packed: bytes, origin: Origin) -> tuple[PackageList, bool]:
    """Store an SBOM of an image with its packages; return it, and whether it is new. Raises NotFound, Conflict."""
    image = lists.lock(image_id)
    if image is None:
        raise NotFound("Image not found, or you don't have access.")
    lists.set_aside(image)
    # Two signers can attest the same document: what the registry holds is one thing each.
    digest = "sha256:" + hashlib.sha256(origin.object_digest.encode() or content).hexdigest()
    known = PackageList.objects.filter(image=image, sbom__digest=digest).select_related("sbom").first()
    if known is not None and known.kind == PackageList.Kind.OWN:
        raise Conflict("This is the document of our own scan.")
    if known is not None and (known.withdrawn_at is None or origin.kind != PackageList.Kind.SENT):
        if origin.kind == PackageList.Kind.SENT:
            _adopt(known, origin)
        return known, False
    placed = _placed(image, document)
    stored = services.store_list(image, services.Content(packages=placed, distro=document.distro))
    sbom, _ = Sbom.objects.get_or_create(
        image=image,
        digest=digest,
        defaults={"format": document.format[:40], "tool": document.tool[:80], "document": packed},
    )
    contents = lists.Contents(
        stored.inventories,
        stored.package_count,
        document.unnamed_count + stored.unusable_count,
        document.distro,
        dropped=[[entry.place, entry.name, entry.version] for entry in document.unnamed],
    )
    row = lists.write(
        sbom,
        contents,
        kind=origin.kind,
        sent_by=origin.sent_by,
        team_ids=list(origin.team_ids),
        is_site_wide=origin.is_site_wide,
        repository=origin.repository,
        object_digest=origin.object_digest,
        withdrawn_at=None,
        withdrawn_by=None,
        kept_at=clock.now(),
    )
    _make_room(image_id)
    actor_id = (origin.sent_by or system_user()).pk
    events.publish(events.ImagesScanned((image_id,), stored.new_package_ids, actor_id=actor_id))
    events.publish(events.SbomKept(image_id))
    return row, True


def _adopt(known: PackageList, origin: Origin) -> None:
    """Note that another person sends the same document: it then counts for the teams of both, and wherever it is."""
    known.team_ids = sorted({*known.team_ids, *origin.team_ids})
    known.is_site_wide = known.is_site_wide or origin.is_site_wide
    known.kind, known.sent_by = PackageList.Kind.SENT, known.sent_by or origin.sent_by
    known.save(update_fields=["team_ids", "is_site_wide", "kind", "sent_by"])
    events.publish(events.SbomKept(known.image_id))


def _placed(image: Image, document: Document) -> list[Package]:
    """Return the packages of the document, each with the position of its layer where the document names one."""
    positions: dict[str, int] = {}
    for layer in Layer.objects.filter(image=image).order_by("position"):
        positions.setdefault(layer.diff_id, layer.position)
        positions.setdefault(layer.digest, layer.position)
    positions.pop("", None)
    return [
        services.placed_at(package, positions.get(layer))
        for package, layer in zip(document.packages, document.layers, strict=True)
    ]


def _make_room(image_id: int) -> None:
    rows = PackageList.objects.filter(image=image_id).exclude(kind=PackageList.Kind.OWN).order_by("-kept_at")
    for row in rows.filter(Q(withdrawn_at=None) | Q(kind=PackageList.Kind.SENT))[KEPT_MAX:]:
        if row.is_used:
            continue
        if row.kind == PackageList.Kind.SENT:
            audit.record(
                Action.IMAGE_SBOM_WITHDRAWN,
                actor=system_user(),
                subject=row.image,
                image=row.image,
                reason=f"Only the newest {KEPT_MAX} SBOMs that were sent are kept.",
                details=SbomSent(row.sbom.digest, row.sbom.format, row.package_count, row.dropped_count),
            )
            row.sbom.delete()
            continue
        # The registry still has it. Without a row, it would be read again, and be the newest one.
        row.inventories.all().delete()
        row.withdrawn_at = clock.now()
        row.save(update_fields=["withdrawn_at"])
        Sbom.objects.filter(pk=row.pk).update(document=b"")


def list_for(actor: User, digest: str, sbom_id: int) -> PackageList:
    """Return a brought SBOM of an image, or of a platform of an index, that `actor` may withdraw; raises NotFound.

    The actor sees those that were sent for a team of theirs, or that a repository of theirs holds.
    """
    image = image_for(actor, digest)
    rows = lists_of([one.pk for one in platforms_of(image)])
    row = next((row for row in rows if row.pk == sbom_id), None)
    if row is None or not _is_visible(actor, row):
        raise sbom_not_found()
    return row


def sbom_not_found() -> NotFound:
    """Return the error for an SBOM that does not exist or is hidden."""
    return NotFound("SBOM not found, or you don't have access.")


def _is_visible(actor: User, row: PackageList) -> bool:
    if row.kind == PackageList.Kind.OWN or row.sent_by_id == actor.pk:
        return True
    held = row.repository_id is not None and repositories_visible_to(actor).filter(pk=row.repository_id).exists()
    return held or teams_visible_to(actor).filter(pk__in=row.team_ids).exists()


def lists_of(image_ids: Iterable[int]) -> list[PackageList]:
    """Return the lists of these platform manifests, newest first, with what lists and pages show of them."""
    rows = PackageList.objects.filter(image__in=list(image_ids)).select_related(
        "sbom", "image", "sent_by", "withdrawn_by", "repository"
    )
    return list(rows.defer("sbom__document", "image__manifest", "image__config").order_by("-kept_at", "-pk"))


@transaction.atomic
def withdraw(digest: str, sbom_id: int, *, actor: User, reason: str = "") -> PackageList:
    """Withdraw a sent SBOM: it stays as a record and no longer decides. Raises NotFound, NotPermitted, Conflict."""
    row = list_for(actor, digest, sbom_id)
    lists.lock(row.image_id)
    row.refresh_from_db()
    refuse_if(why_not_withdraw(actor, row))
    row.withdrawn_at, row.withdrawn_by = clock.now(), actor
    was_used = row.is_used
    row.is_used = False
    row.save(update_fields=["withdrawn_at", "withdrawn_by", "is_used"])
    audit.record(
        Action.IMAGE_SBOM_WITHDRAWN,
        actor=actor,
        subject=row.image,
        image=row.image,
        reason=reason,
        details=SbomSent(row.sbom.digest, row.sbom.format, row.package_count, row.dropped_count),
    )
    if was_used:
        lists.use(row.image_id, None)
    events.publish(events.SbomKept(row.image_id))
    row.refresh_from_db()
    return row


def why_not_withdraw(actor: User, row: PackageList) -> Reason | None:
    """Return why `actor` cannot withdraw this SBOM; None when they can."""
    if row.kind == PackageList.Kind.OWN:
        return Reason("This is our own scan. Rescan the image instead.", Conflict)
    if row.withdrawn_at is not None:
        return Reason("This SBOM is already withdrawn.", Conflict)
    if row.kind != PackageList.Kind.SENT:
        return Reason("The registry holds this SBOM. Delete it there, or retire the trusted source.", Conflict)
    if actor.is_superuser or actor.pk == row.sent_by_id:
        return None
    teams = Team.objects.filter(pk__in=row.team_ids)
    if row.team_ids and all(may(actor, Verb.IMAGE_SCAN, team=team) for team in teams):
        return None
    return Reason("You need image.scan in each team for which it was sent.", NotPermitted)
