"""The platform manifests of an image. Gates, findings, comparisons, rebuilds and pages all use this module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lifecycle.oci.constants import GRAPH_DEPTH_MAX
from lifecycle.registry.models import Image, IndexEntry, MissingChild


class PlatformEntry(NamedTuple):
    """One platform manifest. `platform` comes from the index, else from the manifest's configuration."""

    platform: str
    child: Image


@dataclass(slots=True)
class PlatformTree:
    """The platform manifests of an image: the image itself, or all manifests below an index, in order, each once.

    A manifest is included whatever platform the index declares. Attestations are artifacts, not platform manifests.
    """

    manifests: list[tuple[str, int]] = field(default_factory=list)  # (platform declared by the index, image id)
    indexes: set[int] = field(default_factory=set)
    is_cut: bool = False  # nested deeper than GRAPH_DEPTH_MAX: there can be more manifests below


class Known(Protocol):
    """An image, or as much of it as a tree needs."""

    @property
    def pk(self) -> int: ...
    @property
    def kind(self) -> str: ...


def trees_of(images: Iterable[Known]) -> dict[int, PlatformTree]:
    """Return {image id: its tree}, with one query per level for any number of images, and none for manifests only."""
    wanted = list(images)
    entries: dict[int, list[tuple[str, int, str]]] = defaultdict(list)
    frontier = {image.pk for image in wanted if image.kind == Image.Kind.INDEX}
    for _ in range(GRAPH_DEPTH_MAX + 1):
        if not frontier:
            break
        kinds = (Image.Kind.MANIFEST, Image.Kind.INDEX)
        rows = IndexEntry.objects.filter(index__in=frontier, child__kind__in=kinds).order_by("index", "position")
        below = set()
        for index_id, platform, child_id, kind in rows.values_list("index_id", "platform", "child_id", "child__kind"):
            entries[index_id].append((platform, child_id, kind))
            below |= {child_id} if kind == Image.Kind.INDEX else set()
        frontier = below - entries.keys()
    return {image.pk: _tree(image, entries, frontier) for image in wanted}


def _tree(image: Known, entries: Mapping[int, Sequence[tuple[str, int, str]]], unread: Collection[int]) -> PlatformTree:
    if image.kind != Image.Kind.INDEX:
        return PlatformTree([("", image.pk)] if image.kind == Image.Kind.MANIFEST else [])
    tree = PlatformTree()

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


def missing_of(tree: PlatformTree) -> list[str]:
    """Return the platform, else the digest, of each child of the tree's indexes that is missing in the registry."""
    rows = MissingChild.objects.filter(index__in=tree.indexes).order_by("index", "position")
    return [platform or digest for platform, digest in rows.values_list("platform", "digest")]


def entries_of_images(images: Iterable[Image]) -> dict[int, list[PlatformEntry]]:
    """Return {image id: its platform entries with their images}, with an empty list for indexes nested too deeply.

    One query per level, and one for the images below indexes, for any number of images.
    """
    wanted = {image.pk: image for image in images}
    trees = trees_of(wanted.values())
    below = {pk for tree in trees.values() for _, pk in tree.manifests} - wanted.keys()
    images_by_id = wanted | (Image.objects.defer("manifest").in_bulk(below) if below else {})
    return {
        image_id: []
        if tree.is_cut
        else [PlatformEntry(platform or images_by_id[pk].platform, images_by_id[pk]) for platform, pk in tree.manifests]
        for image_id, tree in trees.items()
    }


def platforms_of(image: Image) -> list[Image]:
    """Return the platform manifests of one image, in order."""
    return [entry.child for entry in entries_of_images([image])[image.pk]]


def platform_ids(image: Image) -> list[int]:
    """Return the ids of the platform manifests of one image, in order, each once; no query for a manifest."""
    return list(dict.fromkeys(pk for _, pk in trees_of([image])[image.pk].manifests))
