"""The method for each image of a plan: rebase, build from its recipe, or skip. Reads layers, within limits."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from lifecycle.core.errors import DiskFull, LifecycleError, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.types import Descriptor
from lifecycle.rebuild import documents, layers, rebase
from lifecycle.rebuild.documents import Loaded
from lifecycle.rebuild.graph import Reach, RepositoryNode
from lifecycle.rebuild.layers import FileTree
from lifecycle.rebuild.models import RebuildJob, Recipe
from lifecycle.rebuild.queries import (
    base_by_layers,
    brings_system_packages,
    name_in_registry,
    repositories_with_builder,
)
from lifecycle.rebuild.refusals import builder_is_off, who_turns_builder_on
from lifecycle.rebuild.types import PlanLimit
from lifecycle.registry.models import Image, Repository

# A user waits for the plan, so its reading has limits. For layers beyond them, the worker decides later.
READ_MAX_S: Final = 20.0
READ_MAX_BYTES: Final = 512 * 1024 * 1024


class _Reader:
    """Reads each manifest and layer once, within the time and size limits of one plan; raises PlanLimit beyond them."""

    def __init__(self, client: RegistryClient) -> None:
        self.client = client
        self._until = time.monotonic() + READ_MAX_S
        self._left = READ_MAX_BYTES
        self._trees: dict[tuple[str, ...], FileTree] = {}
        self._loaded: dict[tuple[str, str], Loaded] = {}

    def load(self, repository: str, image: Image) -> Loaded:
        key = (repository, image.digest)
        if key not in self._loaded:
            self._check(0)
            self._loaded[key] = documents.load(self.client, repository, Digest.parse(image.digest))
        return self._loaded[key]

    def tree(self, client: RegistryClient, repository: str, wanted: Iterable[Descriptor]) -> FileTree:
        descriptors = list(wanted)
        key = tuple(layer.digest.text for layer in descriptors)
        if key not in self._trees:
            whole = FileTree()
            for layer in descriptors:
                self._check(layer.size_bytes)
                whole.add(layers.file_tree_of_layers(client, repository, [layer]))
            self._trees[key] = whole
        return self._trees[key]

    def _check(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0 or time.monotonic() > self._until:
            raise PlanLimit("Reading the layers exceeds the limits of a plan.")


def choose_methods(
    client: RegistryClient, base: Repository, reach: Reach, nodes: Iterable[RepositoryNode], new_platforms: list[Image]
) -> dict[int, str]:
    """Set each node's method and reason. Returns {node key: reason} of the images that cannot be updated.

    Raises RegistryUnavailable, because a plan must not skip images only because the registry is unavailable.
    """
    reader = _Reader(client)
    skipped = {}
    nodes = list(nodes)
    who = who_turns_builder_on()
    with_builder = repositories_with_builder({node.repository.pk for node in nodes})
    for node in nodes:
        try:
            problem = _reason_against_rebase(node, base, reach, new_platforms, reader)
        except PlanLimit as error:
            can_build = node.recipe is not None and node.repository.pk in with_builder
            node.method = RebuildJob.Method.BUILD if can_build else RebuildJob.Method.REBASE
            node.reason = f"{error.message} The worker decides whether the image can be rebased."
            continue
        except (RegistryUnavailable, DiskFull):
            raise  # no fault of the image
        except LifecycleError as error:
            problem = f"The image or its base cannot be read. {error.message}"
        if not problem:
            node.method, node.reason = RebuildJob.Method.REBASE, "Its own layers are put onto the new base unchanged."
        elif node.recipe is not None and node.repository.pk not in with_builder:
            skipped[node.key] = f"The image cannot be rebased: {problem} {builder_is_off(node.repository.name, who)}"
        elif node.recipe is not None:
            node.method, node.reason = RebuildJob.Method.BUILD, problem
        else:
            skipped[node.key] = f"The image has no recipe and cannot be rebased: {problem}"
    return skipped


def _reason_against_rebase(
    node: RepositoryNode, base: Repository, reach: Reach, new_platforms: Sequence[Image], reader: _Reader
) -> str:
    """Return why a node must be built, "" when its layers can be put onto the new base."""
    if problem := rebase_problem(node.image, node.recipe):
        return problem
    old_base = base_by_layers(node.image)
    old_name = name_in_registry(old_base, base.registry) if old_base is not None else None
    if old_base is None or old_name is None:
        return "Its base is unknown."
    if brings_system_packages(node.image, above=old_base):
        return "Its own layers write the package database."
    app, old = reader.load(node.repository.name, node.image), reader.load(old_name, old_base)
    new = None
    if not node.parents and old_base.pk in reach.lines[base.pk]:
        target = next((image for image in new_platforms if image.platform == node.image.platform), None)
        if target is None:
            return "The new base is for another platform."
        new = reader.load(base.name, target)
    # Without `new`, the base is not built yet. The image's own layers are checked now; the worker checks the rest.
    return " ".join(rebase.decide(reader.client, app, old, new, read=reader.tree).reasons)


def rebase_problem(image: Image, recipe: Recipe | None) -> str:
    """Return why an image must not be rebased, according to its rows; "" when they show no reason."""
    if image.kind != Image.Kind.MANIFEST:
        return "It is an index of several platforms."
    if recipe is not None and recipe.created_at > image.first_seen_at:
        return "Its recipe is newer than the image."
    if recipe is not None and len(recipe.base_references) > 1:
        return "Its recipe uses more than one image."
    return ""
