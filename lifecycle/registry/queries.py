"""Reads of images that several callers share."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet

from accounts.models import User
from lifecycle.authority.queries import images_visible_to, repositories_visible_to
from lifecycle.registry.models import Image, IndexEntry, RepositoryImage, Tag


def images_with_places(actor: User, *, repository: str = "", tag: str = "") -> QuerySet[Image]:
    """Return what `actor` sees, with `places_seen` and `tags_seen`: only those repositories that `actor` sees.

    Given a repository's name or a tag's, only what is there, or what such a tag points at there.
    """
    visible = repositories_visible_to(actor)
    held = RepositoryImage.objects.filter(repository__in=visible, removed_at=None)
    tags = Tag.objects.filter(repository__in=visible)
    asked = Q(repository__name=repository) if repository else Q()
    found = images_visible_to(actor)
    if repository:
        found = found.filter(Exists(held.filter(asked, image=OuterRef("pk"))))
    if tag:
        found = found.filter(Exists(tags.filter(asked, name=tag, image=OuterRef("pk"))))
    return found.prefetch_related(
        Prefetch(
            "repository_images",
            queryset=held.select_related("repository").order_by("repository__name", "pk"),
            to_attr="places_seen",
        ),
        Prefetch("tags", queryset=tags, to_attr="tags_seen"),
    )


def platforms_of(image: Image) -> list[Image]:
    """Return the platform manifests that an image means: itself, or the runnable children of an index, in order."""
    if image.kind != Image.Kind.INDEX:
        return [image] if image.kind == Image.Kind.MANIFEST else []
    found: list[Image] = []
    entries = IndexEntry.objects.filter(index=image).select_related("child").order_by("position")
    for entry in entries:
        if entry.child.kind == Image.Kind.INDEX and entry.child != image:
            found.extend(platforms_of(entry.child))
        elif entry.child.kind == Image.Kind.MANIFEST and not entry.platform.startswith("unknown"):
            found.append(entry.child)
    return found
