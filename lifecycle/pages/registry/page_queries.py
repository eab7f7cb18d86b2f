"""Reads that the pages of repositories and images need, each with its joins chosen and its number of queries fixed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import F, OuterRef, QuerySet, Subquery

from lifecycle.registry.models import (
    Image,
    Layer,
    Repository,
    Tag,
    TagEvent,
)
from lifecycle.registry.platforms import PlatformEntry, entries_of_images
from lifecycle.registry.queries import given_by_people

_DOCUMENTS: Final = ("image__manifest", "image__config")  # kilobytes a row, and no list shows them


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


def tags_of(repository: Repository) -> QuerySet[Tag]:
    """Return the live tags of `repository` with their images; order and page them by (-updated_at, -id)."""
    rows = Tag.objects.filter(repository=repository, image__isnull=False)
    return rows.select_related("image").defer(*_DOCUMENTS)


def tag_history(repository: Repository) -> QuerySet[TagEvent]:
    """Return every move of every tag of `repository`; page by -id."""
    return TagEvent.objects.filter(tag__repository=repository).select_related("tag", "old_image", "new_image", "actor")


def image_history(repository: Repository, image: Image) -> QuerySet[TagEvent]:
    """Return the tag moves that brought or took `image` in `repository`, newest first."""
    events = TagEvent.objects.filter(tag__repository=repository).select_related("tag", "actor")
    return (events.filter(new_image=image) | events.filter(old_image=image)).order_by("-id")


def entries_of(image: Image) -> list[PlatformEntry]:
    """Return the platforms of an index, in order; empty for a manifest, which is one platform itself."""
    return entries_of_images([image])[image.pk] if image.kind == Image.Kind.INDEX else []


def layers_of(image: Image) -> list[Layer]:
    """Return the layers of a platform manifest, base first."""
    return list(Layer.objects.filter(image=image).order_by("position"))


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
