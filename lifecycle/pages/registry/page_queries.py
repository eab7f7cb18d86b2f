"""Reads that the pages of repositories and images need, each with its joins chosen and its number of queries fixed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from lifecycle.core.errors import NotFound
from lifecycle.oci.constants import OWN_TAGS
from lifecycle.registry.models import (
    Image,
    IndexEntry,
    Layer,
    Repository,
    RepositoryImage,
    Tag,
    TagEvent,
)

_DOCUMENTS: Final = ("image__manifest", "image__config")  # kilobytes a row, and no list shows them


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is to be found: the name that a reader knows it by."""

    repository: Repository
    tag: str  # "" when no tag points at it now

    @property
    def label(self) -> str:
        return f"{self.repository.name}:{self.tag}" if self.tag else self.repository.name


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a base has fallen behind the tag it was taken from."""

    tag: str
    repository: Repository
    newest: Image
    moves: int  # how often the tag moved since
    since: datetime


def repositories_with_latest(visible: QuerySet[Repository]) -> QuerySet[Repository]:
    """Return `visible` with team, registry and `latest_tag_id`, for `add_latest_tags`."""
    tags = given_by_people(Tag.objects.filter(repository=OuterRef("pk"), image__isnull=False))
    newest = tags.order_by("-updated_at", "-id").values("pk")
    return visible.select_related("team", "registry", "environment").annotate(latest_tag_id=Subquery(newest[:1]))


def add_latest_tags(repositories: Iterable[Repository]) -> None:
    """Give each row of `repositories_with_latest` its `latest_tag` with the image, or None; one query.

    Not a prefetch: that looks at every tag of the repositories to find out which one is the newest.
    """
    rows: list[Any] = list(repositories)
    tags = Tag.objects.select_related("image").defer(*_DOCUMENTS).in_bulk([row.latest_tag_id for row in rows])
    for row in rows:
        row.latest_tag = tags.get(row.latest_tag_id)


def repository_of(visible: QuerySet[Repository], team: str, name: str) -> Repository:
    """Return the repository `name` of `team` among `visible`; raises NotFound when absent or hidden."""
    found = (
        visible.select_related("team", "registry", "environment", "source").filter(team__slug=team, name=name).first()
    )
    if found is None:
        raise NotFound("There is no such repository, or you may not see it.")
    return found


def image_in(repository: Repository, digest: str) -> RepositoryImage:
    """Return the membership of the image `digest` in `repository`, with both ends; raises NotFound."""
    found = (
        RepositoryImage.objects.select_related("image", "pushed_by")
        .filter(repository=repository, image__digest=digest, removed_at=None)
        .exclude(image__kind=Image.Kind.ARTIFACT)
        .first()
    )
    if found is None:
        raise NotFound("There is no such image, or you may not see it.")
    return found


def tags_of(repository: Repository) -> QuerySet[Tag]:
    """Return the live tags of `repository` with their images; order and page them by (-updated_at, -id)."""
    rows = Tag.objects.filter(repository=repository, image__isnull=False)
    return rows.select_related("image").defer(*_DOCUMENTS)


def given_by_people(tags: QuerySet[Tag]) -> QuerySet[Tag]:
    """Return those of `tags` that people gave; what our own workers push beside them is left out."""
    return tags.exclude(Q(name__startswith=OWN_TAGS[0]) | Q(name__startswith=OWN_TAGS[1]))


def tag_history(repository: Repository) -> QuerySet[TagEvent]:
    """Return every move of every tag of `repository`; page by -id."""
    return TagEvent.objects.filter(tag__repository=repository).select_related("tag", "old_image", "new_image", "actor")


def image_history(repository: Repository, image: Image) -> QuerySet[TagEvent]:
    """Return the tag moves that brought or took `image` in `repository`, newest first."""
    events = TagEvent.objects.filter(tag__repository=repository).select_related("tag", "actor")
    return (events.filter(new_image=image) | events.filter(old_image=image)).order_by("-id")


def platform_entries(image: Image) -> list[IndexEntry]:
    """Return the entries of an index that are platforms, each with its `child`, in order.

    Attestations and other artifacts are no platforms.
    """
    if image.kind != Image.Kind.INDEX:
        return []
    entries = IndexEntry.objects.filter(index=image, child__kind=Image.Kind.MANIFEST).select_related("child")
    return [entry for entry in entries.order_by("position") if not entry.platform.startswith("unknown")]


def layers_of(image: Image) -> list[Layer]:
    """Return the layers of a platform manifest, base first."""
    return list(Layer.objects.filter(image=image).order_by("position"))


def places_of(images: Iterable[int], visible: QuerySet[Repository]) -> dict[int, Place]:
    """Return one place for each image id that lies in a visible repository: the newest tag, else the repository.

    Two queries for any number of images.
    """
    ids = set(images)
    places: dict[int, Place] = {}
    tags = Tag.objects.filter(image_id__in=ids, repository__in=visible).select_related("repository__team")
    for tag in tags.order_by("repository__environment_id", "updated_at"):
        if tag.image_id is not None and (tag.image_id not in places or tag.repository.environment_id is None):
            places[tag.image_id] = Place(tag.repository, tag.name)
    members = RepositoryImage.objects.filter(image_id__in=ids - set(places), repository__in=visible, removed_at=None)
    for member in members.select_related("repository__team").order_by("-id"):
        places.setdefault(member.image_id, Place(member.repository, ""))
    return places


def images_held_in(visible: QuerySet[Repository]) -> QuerySet[RepositoryImage, Any]:
    """Return the ids of the images that lie in visible repositories, for `__in`.

    The same images as `images_visible_to`, but without a look at their rows: a join that 100,000 ids go through is
    then half as long.
    """
    return RepositoryImage.objects.filter(repository__in=visible, removed_at=None).values("image")


def lag_of(base: Image, visible: QuerySet[Repository]) -> Lag | None:
    """Return how far `base` is behind the tag that named it, or None while it is the newest; two queries at most."""
    left = (
        TagEvent.objects.filter(
            old_image=base,
            new_image__isnull=False,
            tag__repository__in=visible,
            tag__image__isnull=False,
        )
        .exclude(new_image=F("old_image"))
        .exclude(tag__image=base)
        .select_related("tag__image", "tag__repository__team")
        .order_by("tag__repository__environment_id", "id")
        .first()
    )
    if left is None or left.tag.image is None:
        return None
    moves = TagEvent.objects.filter(tag=left.tag, id__gte=left.pk, new_image__isnull=False).count()
    return Lag(left.tag.name, left.tag.repository, left.tag.image, moves, left.at)
