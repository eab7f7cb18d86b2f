"""Plan a wave: every current image that stands on a changed base, level by level, with the way it can be renewed."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db import transaction
from django.db.models import Q

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.authority.access import may
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core.errors import LifecycleError, NotFound
from lifecycle.core.types import Digest
from lifecycle.lineage.models import Derivation
from lifecycle.rebuild import rebase
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.rebuild.queries import recipe_in_force
from lifecycle.rebuild.services import split_reference
from lifecycle.registry.access import repository_named
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, Tag
from lifecycle.registry.queries import platforms_of


@dataclass(slots=True)
class _Node:
    """One repository's current image in a plan."""

    repository: Repository
    image: Image
    recipe: Recipe | None
    tag: str
    parents: set[int] = field(default_factory=set)  # repository ids; the base's own among them
    level: int = 0
    method: str = ""
    reason: str = ""


def plan_wave(base: str, *, actor: User, trigger: str = "manual") -> RebuildWave:
    """Return what `plan` returns, whether new or not."""
    return plan(base, actor=actor, trigger=trigger)[0]


def plan(base: str, *, actor: User, trigger: str = "manual") -> tuple[RebuildWave, bool]:
    """Return (wave, whether it is new) for `base`, a repository name with a tag or digest (default `latest`).

    What is planned or runs already for the same new base is returned instead of a second plan. Raises NotFound,
    NotPermitted; never starts anything.
    """
    name, reference = split_reference(base)
    repository = repository_named(actor, name)
    new_base = _image_at(repository, reference)
    if new_base is None:
        raise NotFound(f"{name} has no image {reference}.")
    open_wave = RebuildWave.objects.filter(
        repository=repository, new_base=new_base, state__in=(RebuildWave.State.PLANNED, RebuildWave.State.RUNNING)
    ).first()
    if open_wave is not None:
        return open_wave, False
    nodes = _affected(repository, new_base)
    old_base = _old_base(repository, new_base, nodes)
    skipped: list[dict[str, str]] = []
    for node in list(nodes.values()):
        if decision := may(actor, Verb.IMAGE_REBUILD, repository=node.repository):
            _choose_method(node, repository, old_base, new_base)
        if not decision or not node.method:
            reason = node.reason if decision else decision.reason
            if repositories_visible_to(actor).filter(pk=node.repository.pk).exists():
                skipped.append({"repository": node.repository.name, "reason": reason})
            del nodes[node.repository.pk]
    _leave_out_what_stands_on_nothing_new(repository, nodes, skipped, actor)
    return _write(repository, old_base, new_base, nodes, skipped, actor=actor, trigger=trigger)


def _leave_out_what_stands_on_nothing_new(
    base: Repository, nodes: dict[int, _Node], skipped: list[dict[str, str]], actor: User
) -> None:
    """Take out of the plan every image none of whose bases will change, since they were left out themselves."""
    for node in sorted(nodes.values(), key=lambda node: node.level):
        if base.pk in node.parents or node.parents & nodes.keys():
            continue
        del nodes[node.repository.pk]
        if repositories_visible_to(actor).filter(pk=node.repository.pk).exists():
            skipped.append(
                {"repository": node.repository.name, "reason": "What it stands on is left out of this wave."}
            )


def propose(watch: UpstreamWatch, *, actor: User) -> RebuildWave | None:
    """Plan a wave when a watched tag points elsewhere than at the last look; None when it does not."""
    row = Tag.objects.select_related("image").filter(repository=watch.repository, name=watch.tag).first()
    if row is None or row.image is None or row.image.digest == watch.last_digest:
        return None
    wave = None
    if watch.last_digest:  # the first image of a base has nothing below it yet
        wave = plan_wave(f"{watch.repository.name}@{row.image.digest}", actor=actor, trigger="watch")
    UpstreamWatch.objects.filter(pk=watch.pk).update(last_digest=row.image.digest)
    return wave


def _image_at(repository: Repository, reference: str) -> Image | None:
    if ":" in reference:
        held = Q(repository_images__repository=repository, repository_images__removed_at=None)
        return Image.objects.filter(held, digest=Digest.parse(reference).text).first()
    tag = Tag.objects.select_related("image").filter(repository=repository, name=reference).first()
    return tag.image if tag is not None else None


def _affected(base: Repository, new_base: Image) -> dict[int, _Node]:
    """Return, by repository, the current images below the base that do not stand on `new_base` yet, with levels."""
    fresh = {image.pk for image in platforms_of(new_base)}
    found: dict[int, _Node] = {}
    frontier, level = [base], 0
    while frontier and level < 50:  # deeper than any real graph; a cycle of recipes ends here
        level += 1
        following: dict[int, Repository] = {}
        for parent in frontier:
            for repository in _standing_on(parent):
                node = found.get(repository.pk) or _node(repository)
                if repository.pk == base.pk or node is None or _is_on(node.image, fresh):
                    continue
                found[repository.pk] = node
                node.parents.add(parent.pk)
                node.level = level  # the longest way from the base, since later levels overwrite
                following[repository.pk] = repository
        frontier = list(following.values())
    return found


def _standing_on(parent: Repository) -> list[Repository]:
    """Return the families whose images were built on any image of `parent`, or whose recipe names it."""
    images = Image.objects.filter(repository_images__repository=parent)
    derived = Derivation.objects.filter(base__in=images).values("derived_id")
    current = Tag.objects.filter(Q(image__in=derived) | Q(image__entries__child__in=derived), repository__source=None)
    ids = set(current.values_list("repository_id", flat=True))
    for recipe in Recipe.objects.filter(repository__registry=parent.registry, base_references__len__gt=0):
        if any(split_reference(reference)[0] == parent.name for reference in recipe.base_references):
            ids.add(recipe.repository_id)
    rows = Repository.objects.filter(pk__in=ids - {parent.pk}, source=None).order_by("name")
    return list(rows.select_related("team", "registry"))


def _node(repository: Repository) -> _Node | None:
    """Return the repository's current image: what its recipe's tag, else `latest`, else the last tag points at."""
    recipe = recipe_in_force(repository)
    tags = Tag.objects.filter(repository=repository, image__isnull=False).exclude(image__kind=Image.Kind.ARTIFACT)
    wanted = recipe.tag if recipe is not None else "latest"
    tag = tags.filter(name=wanted).first() or tags.order_by("-updated_at", "-pk").first()
    return _Node(repository, tag.image, recipe, tag.name) if tag is not None and tag.image is not None else None


def _is_on(image: Image, fresh: set[int]) -> bool:
    platforms = [platform.pk for platform in platforms_of(image)]
    return Derivation.objects.filter(derived__in=platforms, base__in=fresh).exists()


def _old_base(base: Repository, new_base: Image, nodes: dict[int, _Node]) -> Image | None:
    """Return the base image that the affected images stand on now; the newest when they differ."""
    platforms = [platform.pk for node in nodes.values() for platform in platforms_of(node.image)]
    edges = Derivation.objects.filter(derived__in=platforms, base__repository_images__repository=base)
    edge = edges.exclude(base=new_base).select_related("base").order_by("-base__pk").first()
    return edge.base if edge is not None else None


def _choose_method(node: _Node, base: Repository, old: Image | None, new: Image) -> None:
    """Set the node's method and the reason; an empty method means that it cannot be renewed by us."""
    problem = rebase_problem(node.image, node.recipe)
    if not problem and old is not None:
        client = client_for(base.registry)
        try:
            app = rebase.load(client, node.repository.name, Digest.parse(node.image.digest))
            edge = Derivation.objects.filter(derived=node.image).select_related("base").first()
            direct = base.pk in node.parents and edge is not None and edge.base_id == old.pk
            if direct:
                after = rebase.load(client, base.name, Digest.parse(platforms_of(new)[0].digest))
                decision = rebase.decide(client, app, rebase.load(client, base.name, Digest.parse(old.digest)), after)
            else:
                decision = _decide_early(node, app)
            problem = " ".join(decision.reasons)
        except (LifecycleError, IndexError) as error:
            problem = f"Its layers could not be read: {error}"
    if not problem:
        node.method, node.reason = RebuildJob.Method.REBASE, "Its own layers go onto the new base as they are."
    elif node.recipe is not None:
        node.method, node.reason = RebuildJob.Method.BUILD, problem
    else:
        node.reason = f"It has no recipe, and cannot be rebased: {problem}"


def _decide_early(node: _Node, app: rebase.Loaded) -> rebase.RebaseDecision:
    """Decide by the image's own layers alone, as its new base is not built yet; the worker decides again."""
    edge = Derivation.objects.filter(derived=node.image).select_related("base").first()
    place = edge.base.repository_images.select_related("repository__registry").first() if edge is not None else None
    if edge is None or place is None:
        return rebase.RebaseDecision(False, ("Its base is not known.",))
    client = client_for(place.repository.registry)
    return rebase.decide(client, app, rebase.load(client, place.repository.name, Digest.parse(edge.base.digest)), None)


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
    repository: Repository, old: Image | None, new: Image, nodes: dict[int, _Node], skipped: list[dict[str, str]], *,
    actor: User, trigger: str,
) -> tuple[RebuildWave, bool]:  # fmt: skip
    Repository.objects.select_for_update().get(pk=repository.pk)
    same = RebuildWave.objects.filter(repository=repository, new_base=new, state=RebuildWave.State.PLANNED).first()
    if same is not None:  # planned by somebody else while we read layers
        return same, False
    wave = RebuildWave.objects.create(
        repository=repository, old_base=old, new_base=new, planned_by=actor, trigger=trigger, skipped=skipped
    )
    rows: dict[int, RebuildJob] = {}
    for node in sorted(nodes.values(), key=lambda node: (node.level, node.repository.name)):
        rows[node.repository.pk] = RebuildJob.objects.create(
            wave=wave, repository=node.repository, level=node.level, old_image=node.image, recipe=node.recipe,
            tag=node.tag, method=node.method, method_reason=node.reason,
        )  # fmt: skip
    for node in nodes.values():
        rows[node.repository.pk].parents.set([rows[parent] for parent in node.parents if parent in rows])
    audit.record(
        "rebuild.planned", actor=actor, subject=wave, repository=repository, team=repository.team, image=new,
        images=len(rows), trigger=trigger,
    )  # fmt: skip
    return wave, True
