"""Plan a wave: all current images derived from a changed base, level by level, with the method to update each."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar, Final

from django.db import transaction
from django.db.models import Q

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import RebuildPlanned
from lifecycle.authority.access import repository_named
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.authority.rights import may, require
from lifecycle.core import clock
from lifecycle.core.errors import LimitExceeded, NotFound, PolicyBlocked
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import Digest
from lifecycle.evidence.findings import is_matching
from lifecycle.jobs.handlers import Postponed
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.rebuild import estimates, services
from lifecycle.rebuild.containerfile import split_reference
from lifecycle.rebuild.graph import Reach, RepositoryNode, in_order, reach_of, tags_of
from lifecycle.rebuild.methods import choose_methods
from lifecycle.rebuild.models import RebuildJob, RebuildWave, UpstreamWatch
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, Tag
from lifecycle.registry.platforms import platforms_of

REASONS_SHOWN: Final = 5  # in the message about an empty plan
IMAGES_MAX: Final = 5000  # in one wave, so that a user can review them before the confirmation
SCAN_WAIT: Final = timedelta(seconds=60)  # for the scan of a new base; later estimates are added afterwards
SCAN_POLL_S: Final = 2.0

State = RebuildWave.State
_SEVERAL_PLATFORMS: Final = (
    "The image has several platforms, but the builder makes only one. Rebuild it where it was built."
)


class NothingToRebuild(PolicyBlocked):
    """No image can be rebuilt on this base now. `details["reasons"]` lists the skipped images, with the reason."""

    code: ClassVar[str] = "nothing_to_rebuild"


def plan_wave(base: str, *, actor: User, trigger: str = "manual") -> RebuildWave:
    """Return the wave of `plan`, new or not."""
    return plan(base, actor=actor, trigger=trigger)[0]


def plan(base: str, *, actor: User, trigger: str = "manual") -> tuple[RebuildWave, bool]:
    """Return (wave, whether it is new) for `base`, a repository name with a tag or digest (default `latest`).

    The wave contains the outdated derived images that `actor` can rebuild, and lists the skipped ones that `actor` can
    see, with the reason. If an equal plan is not confirmed yet, or a running wave covers all images, that wave is
    returned. Starts nothing, and stores no empty plan.

    Raises NotFound, NothingToRebuild, RegistryUnavailable, LimitExceeded, or NotPermitted when `actor` cannot rebuild
    the base or any of its derived images.
    """
    name, reference = split_reference(base)
    repository = repository_named(actor, name)
    new_base = _image_at(repository, reference)
    if new_base is None:
        raise NotFound(f"{name} has no image {reference}. Check the name.")
    refuse_if(why_quarantined(new_base))
    new_platforms = platforms_of(new_base)
    reach = reach_of(repository, tags_of(repository, new_base), new_platforms)
    nodes = _outdated_nodes(reach, repository, new_platforms)
    skipped_by_key = dict(reach.skipped)
    allowed = set(repositories_visible_to(actor, Verb.IMAGE_REBUILD).filter(pk__in=nodes).values_list("pk", flat=True))
    if not allowed:
        require(actor, Verb.IMAGE_REBUILD, repository=repository)
    for node in list(nodes.values()):
        if node.key not in allowed:
            skipped_by_key[node.key] = may(actor, Verb.IMAGE_REBUILD, repository=node.repository).reason
        elif node.repository.is_archived:
            skipped_by_key[node.key] = "It is archived."
        elif len(node.platforms) > 1:
            skipped_by_key[node.key] = _SEVERAL_PLATFORMS
    running = _skip_running(repository, new_base, nodes, skipped_by_key)
    _remove_skipped(nodes, skipped_by_key)
    if running is not None and not nodes:
        return running, False
    if len(nodes) > IMAGES_MAX:
        raise LimitExceeded(f"More than {IMAGES_MAX} images are built on it. Plan for one of its derived images first.")
    skipped_by_key |= choose_methods(client_for(repository.registry), repository, reach, nodes.values(), new_platforms)
    _remove_skipped(nodes, skipped_by_key)
    _set_levels(nodes)
    skipped = _skipped_visible_to(actor, skipped_by_key)
    if not nodes:
        raise _nothing(name, reference, skipped)
    return _write(repository, _old_base(reach, repository, nodes, new_platforms), new_base, nodes, skipped,
                  actor=actor, trigger=trigger)  # fmt: skip


def _nothing(name: str, reference: str, skipped: list[dict[str, str]]) -> NothingToRebuild:
    where = f"{name}{'@' if ':' in reference else ':'}{reference}"
    if not skipped:
        return NothingToRebuild(f"There is nothing to rebuild. No image that you can see is outdated on {where}.")
    reasons = [f"{row['repository']}: {row['reason']}" for row in skipped]
    more = f" And {len(reasons) - REASONS_SHOWN} more." if len(reasons) > REASONS_SHOWN else ""
    text = f"No image can be rebuilt on {where}. {' '.join(reasons[:REASONS_SHOWN])}{more}"
    return NothingToRebuild(text, reasons=reasons)


def propose_for(watch_id: int, *, queued_at: datetime) -> None:
    """Plan a wave for a watch whose tag moved. A second run is safe, because the watch stores the digest.

    Raises Postponed while the new base is being scanned and matched, for up to a minute after `queued_at`.
    """
    watch = UpstreamWatch.objects.select_related("repository", "created_by").filter(pk=watch_id).first()
    if watch is None:
        return
    image = _image_at(watch.repository, watch.tag)
    if image is not None and image.digest != watch.last_digest:
        is_late = clock.now() - queued_at >= SCAN_WAIT
        if not is_late and not _has_findings(platforms_of(image)):
            raise Postponed("The new base is being scanned; its estimates need the result.", seconds=SCAN_POLL_S)
    propose(watch, actor=watch.created_by)


def _has_findings(images: list[Image]) -> bool:
    """Return whether the findings of these images are complete: each is scanned and matched, or cannot be scanned."""
    if not all(image.scanned_at or image.scan_problem for image in images):
        return False
    return not is_matching([image.pk for image in images])


def propose(watch: UpstreamWatch, *, actor: User) -> RebuildWave | None:
    """Plan a wave when a watched tag has moved since the last check; None when no image is outdated.

    Raises as `plan`. NothingToRebuild means that every outdated image is skipped: the watch shows why, and a later
    attempt can plan what has changed meanwhile, for example a new recipe.

    Returns None when the tag moved to the result of a running wave. That wave rebuilds the derived images itself, and
    queues a plan for every watch of its images when it ends. So no wave causes a second wave for the same images.
    """
    image = _image_at(watch.repository, watch.tag)
    if image is None or image.digest == watch.last_digest:
        return None
    results = RebuildJob.objects.filter(repository=watch.repository, new_image=image)
    if results.filter(wave__state=State.RUNNING).exists():
        return None
    wave = None
    if watch.last_digest:  # the first image of a base has no derived images yet
        name = f"{watch.repository.name}@{image.digest}"
        try:
            wave, _ = plan(name, actor=actor, trigger="watch")
        except NothingToRebuild as nothing:
            if nothing.details:
                raise
    UpstreamWatch.objects.filter(pk=watch.pk).update(last_digest=image.digest)
    return wave


def _image_at(repository: Repository, reference: str) -> Image | None:
    if ":" in reference:
        is_present = Q(repository_images__repository=repository, repository_images__removed_at=None)
        return Image.objects.filter(is_present, digest=Digest.parse(reference).text).first()
    tag = Tag.objects.select_related("image").filter(repository=repository, name=reference).first()
    return tag.image if tag is not None else None


def _outdated_nodes(reach: Reach, base: Repository, new_platforms: list[Image]) -> dict[int, RepositoryNode]:
    """Return the nodes that are not built on the current images of their bases, or will not be after this wave."""
    order, circular = in_order(reach.nodes)
    for key in circular:
        reach.skipped[key] = "Its bases form a cycle."
    current = {node.key: [image.pk for image in node.platforms] for node in order}
    current[base.pk] = [image.pk for image in new_platforms]
    outdated: dict[int, RepositoryNode] = {}
    for node in order:
        behind = {key for key in node.bases if key in current and not reach.is_built_on(node, current[key])}
        node.parents = node.bases & outdated.keys()
        node.is_behind = bool(behind - outdated.keys())
        if node.parents or behind:
            outdated[node.key] = node
    return outdated


def _remove_skipped(nodes: dict[int, RepositoryNode], skipped_by_key: dict[int, str]) -> None:
    """Remove the skipped nodes, then the nodes without another base that changes."""
    for key in skipped_by_key.keys() & nodes.keys():
        del nodes[key]
    for node in list(nodes.values()):  # parents come first
        had_parents = bool(node.parents)
        node.parents &= nodes.keys()
        if had_parents and not node.parents and not node.is_behind:
            skipped_by_key[node.key] = "Its base is skipped in this wave."
            del nodes[node.key]


def _set_levels(nodes: dict[int, RepositoryNode]) -> None:
    """Set each node's level: the length of the longest path from the base. Parents come first."""
    for node in nodes.values():
        node.level = 1 + max((nodes[parent].level for parent in node.parents), default=0)


def _skip_running(
    base: Repository, new_base: Image, nodes: dict[int, RepositoryNode], skipped_by_key: dict[int, str]
) -> RebuildWave | None:
    """Skip the images that running waves for the same base already rebuild; return the latest such wave, or None."""
    jobs = RebuildJob.objects.filter(wave__repository=base, wave__new_base=new_base, wave__state=State.RUNNING)
    jobs = jobs.exclude(state=RebuildJob.State.CANCELLED)
    for wave_id, key in jobs.values_list("wave_id", "repository_id").order_by("wave_id"):
        if key in nodes:
            skipped_by_key.setdefault(key, f"W-{wave_id} is rebuilding it.")
    return RebuildWave.objects.filter(repository=base, new_base=new_base, state=State.RUNNING).order_by("-pk").first()


def _skipped_visible_to(actor: User, skipped_by_key: dict[int, str]) -> list[dict[str, str]]:
    visible = repositories_visible_to(actor).filter(pk__in=skipped_by_key).order_by("name")
    return [{"repository": name, "reason": skipped_by_key[key]} for key, name in visible.values_list("pk", "name")]


def _old_base(
    reach: Reach, base: Repository, nodes: dict[int, RepositoryNode], new_platforms: list[Image]
) -> Image | None:
    """Return the current base image of the affected images, the newest one when there are several; or None."""
    older = reach.lines.get(base.pk, set()) - {image.pk for image in new_platforms}
    derived = {platform.pk for node in nodes.values() for platform in node.platforms}
    used = {base_id for base_id, derived_id in reach.edges if base_id in older and derived_id in derived}
    return Image.objects.filter(pk__in=used).order_by("-pk").first()


@transaction.atomic
def _write(
    repository: Repository, old: Image | None, new: Image, nodes: dict[int, RepositoryNode],
    skipped: list[dict[str, str]], *, actor: User, trigger: str,
) -> tuple[RebuildWave, bool]:  # fmt: skip
    """Return (wave, True) for a new wave, or (the existing equal plan, False)."""
    Repository.objects.select_for_update().get(pk=repository.pk)
    new_plan = {(node.key, node.image.pk, node.recipe.pk if node.recipe else None) for node in nodes.values()}
    waiting = RebuildWave.objects.filter(repository=repository, new_base=new, state=State.PLANNED).order_by("pk")
    for other in waiting:
        planned = set(other.jobs.values_list("repository_id", "old_image_id", "recipe_id"))
        if planned == new_plan and other.skipped == skipped:
            return other, False
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
    job_ids = {job.repository_id: job.pk for job in rows}
    parent_rows = RebuildJob.parents.through
    parent_rows.objects.bulk_create(
        parent_rows(from_rebuildjob_id=job_ids[node.key], to_rebuildjob_id=job_ids[parent])
        for node in nodes.values()
        for parent in node.parents
    )
    estimates.estimate(wave)
    audit.record(
        Action.REBUILD_PLANNED, actor=actor, subject=wave, repository=repository, team=repository.team, image=new,
        details=RebuildPlanned(images=len(rows), trigger=trigger),
    )  # fmt: skip
    services.supersede_plans(wave, actor=actor)
    return wave, True
