"""Queries for images that several callers share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Q, QuerySet

from lifecycle.registry.constants import OWN_TAGS
from lifecycle.registry.models import (
    Image,
    Metadata,
    Repository,
    RepositoryImage,
    Tag,
)


def images_held_in(visible: QuerySet[Repository]) -> QuerySet[RepositoryImage, Any]:
    """Return the ids of the images in the `visible` repositories, for `__in`.

    These are the same images as in `images_visible_to`, without a join to their rows. With 100,000 ids, a query takes
    half as long.
    """
    return RepositoryImage.objects.filter(repository__in=visible, removed_at=None).values("image")


@dataclass(frozen=True, slots=True)
class Location:
    """The repository, and the tag if any, by which pages name an image."""

    repository: Repository
    tag: str  # "" when no tag points at it now

    @property
    def label(self) -> str:
        return f"{self.repository.name}:{self.tag}" if self.tag else self.repository.name


def metadata_of(repository: Repository, image: Image | None = None) -> QuerySet[Metadata]:
    """Return the metadata of a repository, and with `image` also of that image in it, by subject and key."""
    about = Q(image=None) | Q(image=image) if image is not None else Q(image=None)
    rows = Metadata.objects.filter(about, repository=repository).select_related("changed_by")
    return rows.order_by(F("image").asc(nulls_first=True), "key")


def given_by_people(tags: QuerySet[Tag]) -> QuerySet[Tag]:
    """Return `tags` without the OWN_TAGS of our own workers."""
    return tags.exclude(Q(name__startswith=OWN_TAGS[0]) | Q(name__startswith=OWN_TAGS[1]))


def locations_of(images: Iterable[int], visible: QuerySet[Repository]) -> dict[int, Location]:
    """Return {image id: location} for the images in `visible` repositories: the latest tag, else the repository.

    A tag outside of environments is preferred. Two queries for any number of images.
    """
    ids = set(images)
    locations: dict[int, Location] = {}
    tags = Tag.objects.filter(image_id__in=ids, repository__in=visible).select_related("repository__team")
    for tag in tags.order_by("repository__environment_id", "updated_at"):
        if tag.image_id is not None and (tag.image_id not in locations or tag.repository.environment_id is None):
            locations[tag.image_id] = Location(tag.repository, tag.name)
    untagged = ids - set(locations)
    members = RepositoryImage.objects.filter(image_id__in=untagged, repository__in=visible, removed_at=None)
    for member in members.select_related("repository__team").order_by("-id"):
        locations.setdefault(member.image_id, Location(member.repository, ""))
    return locations
