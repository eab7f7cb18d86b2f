"""Find the images built on a base, level by level. The number of queries does not depend on a level's width.

The current image of a repository is the image that one of its tags points at. The *line* of a tag is all images that
the tag has ever pointed at. When the tag moves, images built on an older image of its line are outdated. Other lines of
the same repository are not affected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.db.models import Q

from lifecycle.core.errors import Malformed
from lifecycle.lineage.models import Derivation
from lifecycle.rebuild.containerfile import split_reference
from lifecycle.rebuild.models import Recipe
from lifecycle.registry.constants import OWN_TAGS
from lifecycle.registry.models import Image, IndexEntry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.registry.platforms import entries_of_images

LEVELS_MAX: Final = 50  # deeper than any real graph


@dataclass(slots=True)
class RepositoryNode:
    """One repository's current image, with its recipe and its bases."""

    repository: Repository
    image: Image
    recipe: Recipe | None
    tag: str
    platforms: list[Image]
    bases: set[int] = field(default_factory=set)  # repositories that it is built on, of those found so far
    parents: set[int] = field(default_factory=set)  # bases that the same wave rebuilds
    level: int = 0
    is_behind: bool = False  # not built on the current image of a base that the wave does not rebuild
    method: str = ""
    reason: str = ""

    @property
    def key(self) -> int:
        return self.repository.pk


@dataclass(slots=True)
class Reach:
    """All images derived from a base, directly or not; `skipped` has the reasons for skipped repositories."""

    nodes: dict[int, RepositoryNode] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    lines: dict[int, set[int]] = field(default_factory=dict)  # repository -> platform images of its line
    edges: set[tuple[int, int]] = field(default_factory=set)  # (base, derived) platform images, of those lines

    def is_built_on(self, node: RepositoryNode, images: Collection[int]) -> bool:
        """Return whether any platform of `node` was built on any of `images`."""
        return any((base, platform.pk) in self.edges for base in images for platform in node.platforms)


def tags_of(repository: Repository, image: Image) -> set[str]:
    """Return the tags of a repository that point at an image, or pointed at it before."""
    named = Q(image=image) | Q(image__entries__child=image)
    named |= Q(events__new_image=image) | Q(events__new_image__entries__child=image)
    return set(Tag.objects.filter(named, repository=repository).values_list("name", flat=True))


def line_images(repository: Repository, tags: Collection[str]) -> set[int]:
    """Return the ids of the platform images in the line of these tags; without tags, all of them."""
    return line_images_of({repository.pk: set(tags)}).get(repository.pk, set())


def reach_of(base: Repository, tags: Collection[str], platforms: Sequence[Image]) -> Reach:
    """Return all images derived from `base`; its `tags` point at `platforms` now. Without tags, its line is all images.

    `bases` of the nodes are complete. The caller decides whether a node is outdated.
    """
    recipes = _current_recipes(base.registry_id)
    named: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for recipe in recipes.values():
        for reference in recipe.base_references:
            try:
                name, tag_or_digest = split_reference(reference)
            except Malformed:  # stored before references were checked: ignore it, so that the plan continues
                continue
            named[name].append((recipe.repository_id, tag_or_digest))
    reach = Reach()
    frontier: dict[int, tuple[str, set[str]]] = {base.pk: (base.name, set(tags))}
    reach.lines[base.pk] = {platform.pk for platform in platforms}
    for _ in range(LEVELS_MAX):
        if not frontier:
            break
        lines = line_images_of({key: words for key, (_, words) in frontier.items()})
        for key, images in lines.items():
            reach.lines[key] = reach.lines.get(key, set()) | images
        by_derivation = _holders(reach, list(frontier))
        candidates = {child for children in by_derivation.values() for child in children}
        candidates |= {child for name, _ in frontier.values() for child, _ in named[name]}
        known = reach.nodes | _nodes(candidates - reach.nodes.keys() - {base.pk}, recipes, base.registry_id)
        following: dict[int, tuple[str, set[str]]] = {}
        for key, (name, words) in frontier.items():
            by_recipe = {child for child, tag_or_digest in named[name] if tag_or_digest in words}
            for child in (by_recipe | by_derivation.get(key, set())) & known.keys():
                node = known[child]
                if child not in by_recipe and node.recipe is not None and node.recipe.base_references:
                    if reach.is_built_on(node, reach.lines.get(key, ())):
                        where = f"{name}:{min(words)}" if words else name
                        reach.skipped.setdefault(child, f"Its recipe does not use {where}.")
                    continue
                if child not in reach.nodes:
                    reach.nodes[child] = node
                    following[child] = (node.repository.name, {node.tag})
                node.bases.add(key)
        frontier = following
    for key in reach.nodes:
        reach.skipped.pop(key, None)
    return reach


def in_order(nodes: dict[int, RepositoryNode]) -> tuple[list[RepositoryNode], set[int]]:
    """Return the nodes, each after its bases, and the keys of the nodes in a circle or derived from one."""
    missing = {key: len(node.bases & nodes.keys()) for key, node in nodes.items()}
    above: dict[int, list[int]] = defaultdict(list)
    for key, node in nodes.items():
        for parent in node.bases & nodes.keys():
            above[parent].append(key)
    ready = sorted((key for key, count in missing.items() if not count), key=lambda key: nodes[key].repository.name)
    order: list[RepositoryNode] = []
    while ready:
        key = ready.pop(0)
        order.append(nodes[key])
        for child in above[key]:
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    return order, {key for key, count in missing.items() if count}


def current_images(repository_ids: Collection[int]) -> dict[int, RepositoryNode]:
    """Return {repository id: its current image with tag and platforms}, of source repositories that have one.

    It is the image that a plan would rebuild: of the recipe's tag, else `latest`, else of the newest tag.
    """
    wanted = Repository.objects.filter(pk__in=repository_ids, source=None).values_list("pk", "registry_id")
    by_registry: dict[int, set[int]] = defaultdict(set)
    for key, registry_id in wanted:
        by_registry[registry_id].add(key)
    found: dict[int, RepositoryNode] = {}
    for registry_id, keys in by_registry.items():
        found |= _nodes(keys, _current_recipes(registry_id, keys), registry_id)
    return found


def _current_recipes(registry_id: int, repository_ids: Collection[int] | None = None) -> dict[int, Recipe]:
    """Return {repository id: its current recipe}, without the texts; of all repositories, or of these."""
    limits = {} if repository_ids is None else {"repository__in": repository_ids}
    rows = (
        Recipe.objects.filter(repository__registry=registry_id, repository__source=None, **limits)
        .order_by("repository_id", "-revision")
        .distinct("repository_id")
        .defer("containerfile", "build_args")
    )
    return {recipe.repository_id: recipe for recipe in rows}


def line_images_of(tags_by_repository: dict[int, set[str]]) -> dict[int, set[int]]:
    """Return {repository id: images that its given tags point at or pointed at}, with the children of indexes.

    Without tags, the result is all images of the repository. The number of queries is the same for any number of
    repositories.
    """
    named = {key: words for key, words in tags_by_repository.items() if words}
    tops: dict[int, set[int]] = defaultdict(set)
    tags: dict[int, int] = {}
    rows = Tag.objects.filter(repository__in=named, name__in={word for words in named.values() for word in words})
    for pk, key, name, image_id in rows.values_list("pk", "repository_id", "name", "image_id"):
        if name in named[key]:
            tags[pk] = key
            tops[key].add(image_id)
    events = TagEvent.objects.filter(tag__in=tags).values_list("tag_id", "old_image_id", "new_image_id")
    for tag_id, old, new in events:
        tops[tags[tag_id]] |= {old, new}
    whole = RepositoryImage.objects.filter(repository__in=tags_by_repository.keys() - named.keys())
    for key, image_id in whole.values_list("repository_id", "image_id"):
        tops[key].add(image_id)
    children = _children_of_indexes({image for images in tops.values() for image in images if image})
    return {
        key: {child for image in images if image for child in (image, *children.get(image, ()))}
        for key, images in tops.items()
    }


def _children_of_indexes(image_ids: Collection[int]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = defaultdict(list)
    for index, child in IndexEntry.objects.filter(index__in=image_ids).values_list("index_id", "child_id"):
        children[index].append(child)
    return children


def _holders(reach: Reach, keys: Iterable[int]) -> dict[int, set[int]]:
    """Return {repository: repositories with a tag on an image built on its line}, and add to `reach.edges`."""
    owners: dict[int, set[int]] = defaultdict(set)
    for key in keys:
        for image in reach.lines.get(key, ()):
            owners[image].add(key)
    edges = list(Derivation.objects.filter(base__in=owners).values_list("base_id", "derived_id"))
    reach.edges |= set(edges)
    derived = {child for _, child in edges}
    parents = IndexEntry.objects.filter(child__in=derived).values_list("child_id", "index_id")
    tops: dict[int, set[int]] = {image: {image} for image in derived}
    for child, index in parents:
        tops[child].add(index)
    holders: dict[int, set[int]] = defaultdict(set)
    rows = Tag.objects.filter(image__in={top for images in tops.values() for top in images}, repository__source=None)
    for image_id, repository_id in rows.values_list("image_id", "repository_id"):
        holders[image_id].add(repository_id)
    result: dict[int, set[int]] = defaultdict(set)
    for base, child in edges:
        for top in tops[child]:
            for key in owners[base]:
                result[key] |= holders[top] - {key}
    return result


def _nodes(repository_ids: Collection[int], recipes: dict[int, Recipe], registry_id: int) -> dict[int, RepositoryNode]:
    """Return each repository's current image: from its recipe's tag, else from `latest`, else from its newest tag.

    Includes only repositories in the registry of the base: images imported from another registry cannot be rebuilt
    here.
    """
    live = (
        Tag.objects.filter(repository__in=repository_ids, repository__source=None, image__isnull=False)
        .filter(repository__registry=registry_id)
        .exclude(image__kind=Image.Kind.ARTIFACT)
        .exclude(Q(name__startswith=OWN_TAGS[0]) | Q(name__startswith=OWN_TAGS[1]))
        .select_related("image", "repository__team", "repository__registry")
        .defer("image__manifest", "image__config")
    )
    tag_names = {key: recipes[key].tag if key in recipes else "latest" for key in repository_ids}
    tags = {tag.repository_id: tag for tag in live.filter(name__in=set(tag_names.values()))
            if tag.name == tag_names[tag.repository_id]}  # fmt: skip
    rest = live.filter(repository__in=tag_names.keys() - tags.keys())
    for tag in rest.order_by("repository_id", "-updated_at", "-pk").distinct("repository_id"):
        tags[tag.repository_id] = tag
    images = {tag.image_id: tag.image for tag in tags.values() if tag.image is not None}
    entries = entries_of_images(images.values())
    platforms = {key: [entry.child for entry in members] for key, members in entries.items()}
    return {
        key: RepositoryNode(tag.repository, tag.image, recipes.get(key), tag.name, platforms[tag.image.pk])
        for key, tag in tags.items()
        if tag.image is not None
    }
