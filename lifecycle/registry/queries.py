"""Reads of images that several callers share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet

from accounts.models import User
from lifecycle.authority.queries import images_visible_to, repositories_visible_to
from lifecycle.oci.constants import GRAPH_DEPTH_MAX
from lifecycle.registry.models import Image, IndexEntry, MissingChild, RepositoryImage, Tag


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


@dataclass(slots=True)
class Tree:
    """What naming an image names in the end, indexes in indexes included."""

    manifests: list[tuple[str, int]] = field(default_factory=list)  # (platform by its index, id), in order, each once
    indexes: set[int] = field(default_factory=set)
    is_cut: bool = False  # nested deeper than is stored: there may be more below


def trees_of(images: Iterable[Image]) -> dict[int, Tree]:
    """Return {image id: what it names}; a query a level for any number of images, none where all are manifests.

    A manifest counts whatever platform an index says it is for; attestations are artifacts, and no manifests here.
    """
    wanted = list(images)
    entries: dict[int, list[tuple[str, int, str]]] = defaultdict(list)
    frontier = {image.pk for image in wanted if image.kind == Image.Kind.INDEX}
    for _ in range(GRAPH_DEPTH_MAX + 1):
        if not frontier:
            break
        kinds = (Image.Kind.MANIFEST, Image.Kind.INDEX)
        rows = IndexEntry.objects.filter(index__in=frontier, child__kind__in=kinds).order_by("index", "position")
        read = rows.values_list("index_id", "platform", "child_id", "child__kind")
        below = set()
        for index_id, platform, child_id, kind in read:
            entries[index_id].append((platform, child_id, kind))
            below |= {child_id} if kind == Image.Kind.INDEX else set()
        frontier = below - entries.keys()
    return {image.pk: _tree(image, entries, frontier) for image in wanted}


def _tree(image: Image, entries: Mapping[int, Sequence[tuple[str, int, str]]], unread: Collection[int]) -> Tree:
    if image.kind != Image.Kind.INDEX:
        return Tree([("", image.pk)] if image.kind == Image.Kind.MANIFEST else [])
    tree = Tree()

    def visit(index_id: int) -> None:
        tree.is_cut = tree.is_cut or index_id in unread
        tree.indexes.add(index_id)
        for platform, child_id, kind in entries.get(index_id, ()):
            if kind == Image.Kind.MANIFEST:
                tree.manifests.append((platform, child_id))
            elif child_id not in tree.indexes:
                visit(child_id)

    visit(image.pk)
    tree.manifests = list(dict.fromkeys(tree.manifests))
    return tree


def missing_of(tree: Tree) -> list[str]:
    """Return the platform, else the digest, of each child that an index names and its registry did not have."""
    rows = MissingChild.objects.filter(index__in=tree.indexes).order_by("index", "position")
    return [platform or digest for platform, digest in rows.values_list("platform", "digest")]


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
