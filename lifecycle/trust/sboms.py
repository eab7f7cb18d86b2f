"""Which SBOM decides what packages an image has: our own scan, or a brought one that somebody trusted stands for.

A brought SBOM counts if its sender could scan the image for every team that has it, or if a trusted source of all these
teams has signed it. Otherwise one team could hide the findings of another one, whose image has the same digest. Of
several that count, the newest one decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.models import F

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import SbomChosen
from lifecycle.authority.queries import repositories_visible_to, teams_visible_to
from lifecycle.core import clock
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.sbom import brought, lists
from lifecycle.sbom.models import PackageList, Sbom
from lifecycle.trust.models import Signature, TrustedSource
from lifecycle.trust.queries import live_sources_of_all

CHECKED_AT_ONCE: Final = 200  # images per round of the sweep

_NO_PLACE: Final = "The image is in no repository."
_UNSIGNED: Final = "No trusted source has signed it."
_OTHER_PLACES: Final = "Its signer is not trusted in every place that has the image."
_NO_SENDER: Final = "Its sender cannot scan the image in every place that has it."


@dataclass(frozen=True, slots=True)
class Standing:
    """Why a list decides, or why it does not."""

    counts: bool
    why: str


def standings(rows: Sequence[PackageList]) -> Mapping[int, Standing]:
    """Return {id of a list: whether it can decide, and why}. Four queries for any number of lists."""
    teams = _teams_of({row.image_id for row in rows})
    brought = [row for row in rows if row.kind != PackageList.Kind.OWN]
    signed = _sources_that_signed(brought)
    return {row.pk: _standing(row, teams.get(row.image_id, frozenset()), signed.get(row.pk, ())) for row in rows}


def _standing(row: PackageList, teams: Collection[int], sources: Sequence[TrustedSource]) -> Standing:
    if row.kind == PackageList.Kind.OWN:
        return Standing(True, "Our own scan.")
    if row.withdrawn_at is not None or not teams:
        withdrawn = "It is withdrawn." if row.withdrawn_by_id is not None else "There are newer ones."
        return Standing(False, withdrawn if row.withdrawn_at is not None else _NO_PLACE)
    if row.sent_by_id is not None and (row.is_site_wide or set(teams) <= set(row.team_ids)):
        return Standing(True, "Sent by a user with image.scan.")
    for source in sources:
        if source.is_site_wide or set(teams) <= {team.pk for team in source.teams.all()}:
            return Standing(True, f"Signed by {source.name}.")
    if row.sent_by_id is not None and not row.object_digest:
        return Standing(False, _NO_SENDER)
    return Standing(False, _OTHER_PLACES if sources else _UNSIGNED)


def _teams_of(image_ids: Iterable[int]) -> dict[int, frozenset[int]]:
    found: dict[int, set[int]] = {}
    places = RepositoryImage.objects.filter(image__in=list(image_ids), removed_at=None)
    for image_id, team_id in places.values_list("image_id", "repository__team_id").distinct():
        found.setdefault(image_id, set()).add(team_id)
    return {image_id: frozenset(teams) for image_id, teams in found.items()}


def _sources_that_signed(rows: Sequence[PackageList]) -> dict[int, list[TrustedSource]]:
    """Return {id of a list: the live sources whose signers made its attestation}."""
    named = {(row.image_id, row.object_digest): row.pk for row in rows if row.object_digest}
    if not named:
        return {}
    live = {source.pk: source for source in live_sources_of_all()}
    signatures = Signature.objects.filter(
        image__in={image_id for image_id, _ in named},
        object_digest__in={digest for _, digest in named},
        state=Signature.State.VERIFIED,
    ).prefetch_related("signers")
    found: dict[int, list[TrustedSource]] = {}
    for signature in signatures:
        pk = named.get((signature.image_id, signature.object_digest))
        if pk is not None:
            sources = [live[one.source_id] for one in signature.signers.all() if one.source_id in live]
            found.setdefault(pk, []).extend(sources)
    return found


def _chosen(rows: Sequence[PackageList], standing: Mapping[int, Standing]) -> PackageList | None:
    """Return which of the lists of one image decides; `rows` are sorted, newest first."""
    brought = (row for row in rows if row.kind != PackageList.Kind.OWN and standing[row.pk].counts)
    return next(brought, None) or next((row for row in rows if row.kind == PackageList.Kind.OWN), None)


@transaction.atomic
def choose(image_id: int) -> None:
    """Put the newest list that counts in use, else the one of our scan. It is audited when that changes something."""
    image = lists.lock(image_id)
    if image is None:
        return
    rows = brought.lists_of([image_id])
    standing = standings(rows)
    chosen = _chosen(rows, standing)
    before = next((row for row in rows if row.is_used), None)
    if chosen == before:
        return
    lists.use(image_id, chosen)
    audit.record(
        Action.IMAGE_SBOM_CHOSEN,
        actor=system_user(),
        subject=image,
        image=image,
        details=SbomChosen(
            _digest_of(chosen), _digest_of(before), standing[chosen.pk].why if chosen else "No SBOM is known."
        ),
    )


def _digest_of(row: PackageList | None) -> str:
    return row.sbom.digest if row is not None and row.kind != PackageList.Kind.OWN else ""


def choose_again(image_ids: Collection[int]) -> None:
    """Choose again for those of these images that have a brought SBOM. Only those that change are locked."""
    with_lists = lists.images_with_lists(image_ids)
    rows_of: dict[int, list[PackageList]] = {}
    for row in brought.lists_of(with_lists) if with_lists else ():
        rows_of.setdefault(row.image_id, []).append(row)
    standing = standings([row for rows in rows_of.values() for row in rows])
    for image_id, rows in sorted(rows_of.items()):
        if _chosen(rows, standing) != next((row for row in rows if row.is_used), None):
            choose(image_id)


def choose_due(limit: int = CHECKED_AT_ONCE) -> int:
    """Choose again for the images that were not looked at for longest; return their number.

    What makes an SBOM count can change without an event: a source begins or retires, a repository gets the image.
    """
    due = PackageList.objects.exclude(kind=PackageList.Kind.OWN).order_by(F("checked_at").asc(nulls_first=True))
    ids = set(due.values_list("image_id", flat=True)[:limit])
    if ids:
        choose_again(ids)
        PackageList.objects.filter(image__in=ids).update(checked_at=clock.now())
    return len(ids)


@dataclass(frozen=True, slots=True)
class Source:
    """One SBOM of a platform manifest, as a reader sees it."""

    id: int
    image: Image
    kind: str
    format: str
    tool: str
    digest: str
    is_used: bool
    why: str
    package_count: int
    dropped_count: int
    dropped: Sequence[Sequence[str]]
    created_at: datetime
    sent_by: str | None = None
    repository: str | None = None
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None
    row: PackageList | None = None  # None: the image has only our scan

    @property
    def is_own(self) -> bool:
        """Whether it is our scan, or an import."""
        return self.kind == PackageList.Kind.OWN


def sources_of(actor: User, images: Sequence[Image]) -> list[Source]:
    """Return the SBOMs of these platform manifests that `actor` can see, newest first within each platform.

    An SBOM of a team or repository that the actor cannot see is left out; if it is in use, only that it is. Nine
    queries for any number.
    """
    rows = brought.lists_of([image.pk for image in images])
    standing = standings(rows)
    teams = set(teams_visible_to(actor).values_list("pk", flat=True)) if rows else set()
    named = {row.repository_id for row in rows if row.repository_id is not None}
    repositories = (
        set(repositories_visible_to(actor).filter(pk__in=named).values_list("pk", flat=True)) if named else set()
    )
    listed: dict[int, list[Source]] = {image.pk: [] for image in images}
    for row in rows:
        is_own = row.kind == PackageList.Kind.OWN
        is_known = is_own or row.repository_id in repositories or bool(teams & set(row.team_ids))
        if is_known or row.is_used:
            listed[row.image_id].append(_source(row, standing[row.pk], is_known=is_known))
    alone = [image for image in images if not listed[image.pk]]
    newest = Sbom.objects.filter(image__in=alone).defer("document").order_by("image", "-pk").distinct("image")
    for sbom in newest:
        listed[sbom.image_id].append(_only(sbom, next(image for image in alone if image.pk == sbom.image_id)))
    return [source for image in images for source in listed[image.pk]]


def _source(row: PackageList, standing: Standing, *, is_known: bool) -> Source:
    later = "A newer SBOM counts." if standing.counts and row.kind != PackageList.Kind.OWN else ""
    beside = "An SBOM that counts is preferred." if row.kind == PackageList.Kind.OWN else ""
    return Source(
        id=row.pk,
        image=row.image,
        kind=row.kind,
        format=row.sbom.format,
        tool=row.sbom.tool if is_known else "",
        digest=row.sbom.digest if is_known else "",
        is_used=row.is_used,
        why=standing.why if row.is_used or not standing.counts else later or beside,
        package_count=row.package_count,
        dropped_count=row.dropped_count,
        dropped=row.dropped if is_known else [],
        created_at=row.kept_at,
        sent_by=row.sent_by.username if is_known and row.sent_by is not None else None,
        repository=row.repository.name if is_known and row.repository is not None else None,
        withdrawn_at=row.withdrawn_at,
        withdrawn_by=row.withdrawn_by.username if is_known and row.withdrawn_by is not None else None,
        row=row if is_known else None,
    )


def _only(sbom: Sbom, image: Image) -> Source:
    return Source(
        id=sbom.pk,
        image=image,
        kind=PackageList.Kind.OWN,
        format=sbom.format,
        tool=sbom.tool,
        digest=sbom.digest,
        is_used=image.scanned_at is not None,
        why="Our own scan, the only SBOM of this image.",
        package_count=image.package_count,
        dropped_count=image.dropped_count,
        dropped=[],
        created_at=sbom.created_at,
    )


def make_due() -> None:
    """Let the sweep look at all brought SBOMs from registries again: who is trusted has changed."""
    PackageList.objects.exclude(kind=PackageList.Kind.OWN).exclude(object_digest="").update(checked_at=None)
