"""Plan a wave: every current image that stands on a changed base, level by level, with the way it can be renewed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from django.db import transaction
from django.db.models import Q

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.authority.access import repository_named
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.authority.rights import may, require
from lifecycle.core.errors import LifecycleError, LimitExceeded, NotFound, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.types import Descriptor
from lifecycle.rebuild import estimates, layers, rebase, services
from lifecycle.rebuild.containerfile import split_reference
from lifecycle.rebuild.documents import Loaded, load
from lifecycle.rebuild.graph import Reach, RepositoryNode, in_order, reach_of, tags_of
from lifecycle.rebuild.layers import FileTree
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.rebuild.queries import base_by_layers, brings_system_packages, name_in_registry
from lifecycle.rebuild.types import PlanLimit
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, Tag
from lifecycle.registry.platforms import platforms_of

# Somebody waits for the answer; what was not read within these is decided by the worker, who reads it anyway.
READ_MAX_S: Final = 20.0
READ_MAX_BYTES: Final = 512 * 1024 * 1024

IMAGES_MAX: Final = 5000  # of one wave; more than one confirmation can be about

State = RebuildWave.State


class _Reader:
    """Reads manifests and layers once each, within a plan's time and size; raises PlanLimit beyond."""

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
            self._loaded[key] = load(self.client, repository, Digest.parse(image.digest))
        return self._loaded[key]

    def tree(self, client: RegistryClient, repository: str, wanted: Iterable[Descriptor]) -> FileTree:
        found = list(wanted)
        key = tuple(layer.digest.text for layer in found)
        if key not in self._trees:
            whole = FileTree()
            for layer in found:
                self._check(layer.size_bytes)
                whole.add(layers.file_tree_of_layers(client, repository, [layer]))
            self._trees[key] = whole
        return self._trees[key]

    def _check(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0 or time.monotonic() > self._until:
            raise PlanLimit("Reading its layers would take longer than a plan may.")


def plan_wave(base: str, *, actor: User, trigger: str = "manual") -> RebuildWave:
    """Return what `plan` returns, whether new or not."""
    return plan(base, actor=actor, trigger=trigger)[0]


def plan(base: str, *, actor: User, trigger: str = "manual") -> tuple[RebuildWave, bool]:
    """Return (wave, whether it is new) for `base`, a repository name with a tag or digest (default `latest`).

    It holds what `actor` may rebuild; what is left out is listed with the reason, as far as `actor` may see it. A
    waiting plan that says the same, or the running wave that covers all of it, is returned instead of a second one.
    Never starts anything.

    Raises NotFound, RegistryUnavailable, or NotPermitted when `actor` may rebuild neither the base nor anything that
    stands on it.
    """
    wave, is_new = _plan(base, actor=actor, trigger=trigger)
    if wave is None:
        raise NotFound("There is nothing to plan.")  # only a watch's plan is left unwritten
    return wave, is_new


def _plan(base: str, *, actor: User, trigger: str, even_empty: bool = True) -> tuple[RebuildWave | None, bool]:
    name, reference = split_reference(base)
    repository = repository_named(actor, name)
    new_base = _image_at(repository, reference)
    if new_base is None:
        raise NotFound(f"{name} has no image {reference}.")
    fresh = platforms_of(new_base)
    reach = reach_of(repository, tags_of(repository, new_base), fresh)
    nodes = _to_renew(reach, repository, fresh)
    left_out = dict(reach.left_out)
    allowed = set(repositories_visible_to(actor, Verb.IMAGE_REBUILD).filter(pk__in=nodes).values_list("pk", flat=True))
    if not allowed:
        require(actor, Verb.IMAGE_REBUILD, repository=repository)
    for node in list(nodes.values()):
        if node.key not in allowed:
            left_out[node.key] = _refusal(actor, node)
        elif len(node.platforms) > 1:
            left_out[node.key] = "It holds several platforms, and the builder makes one; renew it where it is built."
    running = _leave_to_running_waves(repository, new_base, nodes, left_out)
    _drop(nodes, left_out)
    if running is not None and not nodes:
        return running, False
    if len(nodes) > IMAGES_MAX:
        raise LimitExceeded(f"More than {IMAGES_MAX} images stand on it; plan for what stands between.")
    _choose_methods(repository, reach, nodes, left_out, fresh)
    _drop(nodes, left_out)
    _set_levels(nodes)
    skipped = _skipped(left_out, actor)
    if not nodes and not skipped and not even_empty:
        return None, False
    return _write(repository, _old_base(reach, repository, nodes, fresh), new_base, nodes, skipped,
                  actor=actor, trigger=trigger)  # fmt: skip


def propose(watch: UpstreamWatch, *, actor: User) -> RebuildWave | None:
    """Plan a wave when a watched tag points elsewhere than at the last look; None when there is nothing to renew.

    The result of a wave that still runs proposes nothing: that wave goes on to what stands on it by itself, and its
    end lets every watch of its images look again. So no wave leads to a second one over the same images.
    """
    row = Tag.objects.select_related("image").filter(repository=watch.repository, name=watch.tag).first()
    if row is None or row.image is None or row.image.digest == watch.last_digest:
        return None
    results = RebuildJob.objects.filter(repository=watch.repository, new_image=row.image)
    if results.filter(wave__state=State.RUNNING).exists():
        return None
    wave = None
    if watch.last_digest:  # the first image of a base has nothing below it yet
        name = f"{watch.repository.name}@{row.image.digest}"
        wave, _ = _plan(name, actor=actor, trigger="watch", even_empty=False)
    UpstreamWatch.objects.filter(pk=watch.pk).update(last_digest=row.image.digest)
    return wave


def _image_at(repository: Repository, reference: str) -> Image | None:
    if ":" in reference:
        held = Q(repository_images__repository=repository, repository_images__removed_at=None)
        return Image.objects.filter(held, digest=Digest.parse(reference).text).first()
    tag = Tag.objects.select_related("image").filter(repository=repository, name=reference).first()
    return tag.image if tag is not None else None


def _to_renew(reach: Reach, base: Repository, fresh: list[Image]) -> dict[int, RepositoryNode]:
    """Return the nodes that do not stand on what their bases are, or will be once this is carried out."""
    order, circle = in_order(reach.nodes)
    for key in circle:
        reach.left_out[key] = "What it stands on stands, in the end, on itself."
    current = {node.key: [image.pk for image in node.platforms] for node in order}
    current[base.pk] = [image.pk for image in fresh]
    renewed: dict[int, RepositoryNode] = {}
    for node in order:
        behind = {key for key in node.bases if key in current and not reach.stands_on(node, current[key])}
        node.parents = node.bases & renewed.keys()
        node.is_behind = bool(behind - renewed.keys())
        if node.parents or behind:
            renewed[node.key] = node
    return renewed


def _drop(nodes: dict[int, RepositoryNode], left_out: dict[int, str]) -> None:
    """Take out what is left out, and then whatever stood on nothing else that changes."""
    for key in left_out.keys() & nodes.keys():
        del nodes[key]
    for node in list(nodes.values()):  # parents come first
        had_parents = bool(node.parents)
        node.parents &= nodes.keys()
        if had_parents and not node.parents and not node.is_behind:
            left_out[node.key] = "What it stands on is left out of this wave."
            del nodes[node.key]


def _set_levels(nodes: dict[int, RepositoryNode]) -> None:
    """Set the longest way from the base as each node's level: parents come first."""
    for node in nodes.values():
        node.level = 1 + max((nodes[parent].level for parent in node.parents), default=0)


def _refusal(actor: User, node: RepositoryNode) -> str:
    return may(actor, Verb.IMAGE_REBUILD, repository=node.repository).reason


def _leave_to_running_waves(
    base: Repository, new_base: Image, nodes: dict[int, RepositoryNode], left_out: dict[int, str]
) -> RebuildWave | None:
    """Leave out what a running wave onto the same base has in hand; return such a wave, None without one."""
    jobs = RebuildJob.objects.filter(wave__repository=base, wave__new_base=new_base, wave__state=State.RUNNING)
    jobs = jobs.exclude(state=RebuildJob.State.CANCELLED)
    for wave_id, key in jobs.values_list("wave_id", "repository_id").order_by("wave_id"):
        if key in nodes:
            left_out.setdefault(key, f"W-{wave_id} renews it now.")
    return RebuildWave.objects.filter(repository=base, new_base=new_base, state=State.RUNNING).order_by("-pk").first()


def _skipped(left_out: dict[int, str], actor: User) -> list[dict[str, str]]:
    visible = repositories_visible_to(actor).filter(pk__in=left_out).order_by("name")
    return [{"repository": name, "reason": left_out[key]} for key, name in visible.values_list("pk", "name")]


def _old_base(reach: Reach, base: Repository, nodes: dict[int, RepositoryNode], fresh: list[Image]) -> Image | None:
    """Return the base image that the affected images stand on now; the newest when they differ."""
    older = reach.lines.get(base.pk, set()) - {image.pk for image in fresh}
    derived = {platform.pk for node in nodes.values() for platform in node.platforms}
    found = {below for below, above in reach.edges if below in older and above in derived}
    return Image.objects.filter(pk__in=found).order_by("-pk").first()


def _choose_methods(
    base: Repository, reach: Reach, nodes: dict[int, RepositoryNode], left_out: dict[int, str], fresh: list[Image]
) -> None:
    """Set each node's method and the reason; what cannot be renewed by us is left out. Reads layers, within limits."""
    reader = _Reader(client_for(base.registry))
    for node in nodes.values():
        try:
            problem = _rebase_refusal(node, base, reach, fresh, reader)
        except PlanLimit as error:
            node.method = RebuildJob.Method.BUILD if node.recipe else RebuildJob.Method.REBASE
            node.reason = f"{error.message} Its worker decides whether it can be rebased."
            continue
        except RegistryUnavailable:
            raise  # not the image's fault: nothing would look at what was left out for it
        except LifecycleError as error:
            problem = f"The image or its base cannot be read. {error.message}"
        if not problem:
            node.method, node.reason = RebuildJob.Method.REBASE, "Its own layers go onto the new base as they are."
        elif node.recipe is not None:
            node.method, node.reason = RebuildJob.Method.BUILD, problem
        else:
            left_out[node.key] = f"It has no recipe, and cannot be rebased: {problem}"


def _rebase_refusal(node: RepositoryNode, base: Repository, reach: Reach, fresh: list[Image], reader: _Reader) -> str:
    """Return why a node is to be built, "" when its layers may be put onto the new base."""
    if problem := rebase_problem(node.image, node.recipe):
        return problem
    old = base_by_layers(node.image)
    place = name_in_registry(old, base.registry) if old is not None else None
    if old is None or place is None:
        return "Its base is not known."
    if brings_system_packages(node.image, above=old):
        return "Its own layers write the package database."
    app, before = reader.load(node.repository.name, node.image), reader.load(place, old)
    after = None
    if not node.parents and old.pk in reach.lines[base.pk]:
        target = next((image for image in fresh if image.platform == node.image.platform), None)
        if target is None:
            return "The new base is for another platform."
        after = reader.load(base.name, target)
    # Without `after` the base is not built yet: its own layers are looked at now, the rest by the worker.
    return " ".join(rebase.decide(reader.client, app, before, after, read=reader.tree).reasons)


def rebase_problem(image: Image, recipe: Recipe | None) -> str:
    """Return why an image is not to be rebased, as far as its rows tell; "" when they tell nothing."""
    if image.kind != Image.Kind.MANIFEST:
        return "It is an index of several platforms."
    if recipe is not None and recipe.created_at > image.first_seen_at:
        return "Its recipe is newer than the image."
    if recipe is not None and len(recipe.base_references) > 1:
        return "Its recipe takes files from more than one image."
    return ""


@transaction.atomic
def _write(
    repository: Repository, old: Image | None, new: Image, nodes: dict[int, RepositoryNode],
    skipped: list[dict[str, str]], *,
    actor: User, trigger: str,
) -> tuple[RebuildWave, bool]:  # fmt: skip
    Repository.objects.select_for_update().get(pk=repository.pk)
    wanted = {(node.key, node.image.pk, node.recipe.pk if node.recipe else None) for node in nodes.values()}
    waiting = RebuildWave.objects.filter(repository=repository, new_base=new, state=State.PLANNED).order_by("pk")
    for same in waiting:
        held = set(same.jobs.values_list("repository_id", "old_image_id", "recipe_id"))
        if held == wanted and same.skipped == skipped:
            return same, False
    wave = RebuildWave.objects.create(
        repository=repository, old_base=old, new_base=new, planned_by=actor, trigger=trigger, skipped=skipped
    )
    rows = RebuildJob.objects.bulk_create(
        RebuildJob(
            wave=wave, repository=node.repository, level=node.level, old_image=node.image, recipe=node.recipe,
            tag=node.tag, method=node.method, method_reason=node.reason,
        )
        for node in sorted(nodes.values(), key=lambda node: (node.level, node.repository.name))
    )  # fmt: skip
    made = {job.repository_id: job.pk for job in rows}
    stands_on = RebuildJob.parents.through
    stands_on.objects.bulk_create(
        stands_on(from_rebuildjob_id=made[node.key], to_rebuildjob_id=made[parent])
        for node in nodes.values()
        for parent in node.parents
    )
    estimates.estimate(wave)
    audit.record(
        "rebuild.planned", actor=actor, subject=wave, repository=repository, team=repository.team, image=new,
        images=len(rows), trigger=trigger,
    )  # fmt: skip
    services.supersede_plans(wave, actor=actor)
    return wave, True
