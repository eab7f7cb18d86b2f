"""Queries of the repository and image pages, each with its joins and a fixed number of queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import Exists, F, OuterRef, QuerySet, Subquery

from accounts.models import User
from lifecycle.authority.queries import images_visible_to, repositories_open_to
from lifecycle.environments.models import Slot
from lifecycle.evidence.judgement import add_platforms
from lifecycle.lineage.models import Ancestry
from lifecycle.quarantine.queries import add_covers
from lifecycle.registry.models import (
    Image,
    Layer,
    Repository,
    RepositoryImage,
    Tag,
    TagEvent,
)
from lifecycle.registry.platforms import PlatformEntry, entries_of_images
from lifecycle.registry.queries import given_by_people, locations_of

_TAGS_OFFERED: Final = 30
_STANDING_SHOWN: Final = 20
_DOCUMENTS: Final = ("image__manifest", "image__config")  # kilobytes in each row, not shown in lists


@dataclass(frozen=True, slots=True)
class Lag:
    """A tag that pointed at a base and has moved on: its newest image, and the number and start of the moves."""

    tag: str
    repository: Repository
    newest: Image
    moves: int  # number of moves of the tag away from the base and later
    since: datetime


def repositories_with_latest(visible: QuerySet[Repository]) -> QuerySet[Repository]:
    """Return `visible` with team, registry and `latest_tag_id`, for `add_latest_tags`."""
    tags = given_by_people(Tag.objects.filter(repository=OuterRef("pk"), image__isnull=False))
    newest = tags.order_by("-updated_at", "-id").values("pk")
    return visible.select_related("team", "registry", "environment").annotate(latest_tag_id=Subquery(newest[:1]))


def add_latest_tags(repositories: Iterable[Repository], actor: User) -> None:
    """Set `latest_tag`, with its image, or None, on each row of `repositories_with_latest`, and `platform_entries`
    on an index. Not a prefetch, because a prefetch reads every tag of the repositories to find the latest one.
    """
    rows: list[Any] = list(repositories)
    tags = Tag.objects.select_related("image").defer(*_DOCUMENTS).in_bulk([row.latest_tag_id for row in rows])
    for row in rows:
        row.latest_tag = tags.get(row.latest_tag_id)
    add_platforms(tag.image for tag in tags.values() if tag.image is not None)
    add_covers((tag.image for tag in tags.values()), actor)


def tags_of(repository: Repository) -> QuerySet[Tag]:
    """Return the live tags of `repository` with their images; order and page them by (-updated_at, -id)."""
    rows = Tag.objects.filter(repository=repository, image__isnull=False)
    return rows.select_related("image").defer(*_DOCUMENTS)


def untagged_in(repository: Repository) -> QuerySet[RepositoryImage]:
    """Return the images of `repository` to which no tag of people points, without platforms of indexes; page by -id."""
    tagged = given_by_people(Tag.objects.filter(repository=repository, image=OuterRef("image")))
    rows = RepositoryImage.objects.filter(repository=repository, removed_at=None, is_top_level=True)
    rows = rows.exclude(image__kind=Image.Kind.ARTIFACT).filter(~Exists(tagged))
    return rows.select_related("image", "pushed_by").defer(*_DOCUMENTS)


def standing_on(repository: Repository, image: Image, user: User) -> dict[str, Any]:
    """Return what stands on an image in a repository: tags, environments, derived images, requests, other places.

    Only what `user` can see.
    """
    visible = repositories_open_to(user)
    derived = Ancestry.objects.filter(ancestor=image).values("descendant")
    seen = images_visible_to(user).filter(pk__in=derived)
    places = RepositoryImage.objects.filter(image=image, removed_at=None).exclude(repository=repository)
    shown = list(seen.order_by("-pk")[:_STANDING_SHOWN])
    return {
        "tags": list(Tag.objects.filter(repository=repository, image=image).order_by("name")),
        "slots": list(Slot.objects.filter(repository=repository, image=image).select_related("environment")),
        "derived_count": seen.count(),
        "derived": list(locations_of([row.pk for row in shown], visible).values()),
        "places": list(places.filter(repository__in=visible).select_related("repository__team")[:_STANDING_SHOWN]),
    }


def other_tags(repository: Repository, image: Image) -> list[str]:
    """Return the latest tags of `repository` that point at another image, to compare with."""
    tags = given_by_people(Tag.objects.filter(repository=repository, image__isnull=False)).exclude(image=image)
    return list(tags.order_by("-updated_at", "-id").values_list("name", flat=True)[:_TAGS_OFFERED])


def tag_history(repository: Repository) -> QuerySet[TagEvent]:
    """Return all events of all tags of `repository`; page them by -id."""
    return TagEvent.objects.filter(tag__repository=repository).select_related("tag", "old_image", "new_image", "actor")


def image_history(repository: Repository, image: Image) -> QuerySet[TagEvent]:
    """Return the events of tags in `repository` that moved to or from `image`, newest first."""
    events = TagEvent.objects.filter(tag__repository=repository).select_related("tag", "actor")
    return (events.filter(new_image=image) | events.filter(old_image=image)).order_by("-id")


def entries_of(image: Image) -> list[PlatformEntry]:
    """Return the platforms of an index, in order. The list is empty for a manifest, which is itself one platform."""
    return entries_of_images([image])[image.pk] if image.kind == Image.Kind.INDEX else []


def layers_of(image: Image) -> list[Layer]:
    """Return the layers of a platform manifest, base first."""
    return list(Layer.objects.filter(image=image).order_by("position"))


def lag_of(base: Image, visible: QuerySet[Repository]) -> Lag | None:
    """Return how far `base` is behind a tag that pointed at it, or None if no such tag has moved on.

    At most two queries.
    """
    first_move = (
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
    if first_move is None or first_move.tag.image is None:
        return None
    tag = first_move.tag
    moves = TagEvent.objects.filter(tag=tag, id__gte=first_move.pk, new_image__isnull=False).count()
    return Lag(tag.name, tag.repository, first_move.tag.image, moves, first_move.at)
