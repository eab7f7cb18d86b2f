"""What runs where, as far as a reader can see it: in clusters of their whole teams, and images of repositories."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import BooleanField, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet, Value

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.covers import whole_teams
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.inventory.constants import SILENT_AFTER
from lifecycle.inventory.models import Reporter, RunningContainer, RunningImage
from lifecycle.registry.models import Image, IndexEntry, RepositoryImage

_SEEN = ("is_place_seen", "is_image_seen", "is_repository_seen")  # annotations, declared on RunningImage
_ORDER = ("silent", "late", "fresh", "imported")


def running_images_visible_to(actor: User) -> QuerySet[RunningImage]:
    """Return the intervals of images in clusters of whole teams that `actor` can see, and of images that they can see.

    An image is seen by its name and its digest. The digest alone is not enough: a team with the same public image must
    not learn where others run it. The name alone is not either: whoever reports can invent it. Each row says what of it
    may be shown: `is_place_seen`, `is_image_seen`, `is_repository_seen`. Show a digest only by `digests_shown`.
    """
    rows = RunningImage.objects.select_related("cluster__team", "environment__team", "image", "repository__team")
    whole = whole_teams(actor, Verb.IMAGE_VIEW)
    if whole is None:
        return rows.annotate(**dict.fromkeys(_SEEN, Value(True)))
    visible = repositories_visible_to(actor).values("pk")
    is_own, is_named = Q(cluster__team__in=sorted(whole)), Q(repository__in=visible)
    # In the own cluster or environment of a repository's team, whoever sees the repository sees where it runs.
    is_at_home = Q(repository__team=F("cluster__team")) | Q(repository__team=F("environment__team"))
    is_placed = is_own | Q(environment__team__in=sorted(whole)) | (is_named & is_at_home)
    held = RepositoryImage.objects.filter(repository__in=visible)
    entries = IndexEntry.objects.filter(child=OuterRef("image"), index__in=held.values("image"))
    was_held = Exists(held.filter(image=OuterRef("image"))) | Exists(entries)
    entries = IndexEntry.objects.filter(child=OuterRef("image"), index__in=held.filter(removed_at=None).values("image"))
    is_held = Exists(held.filter(image=OuterRef("image"), removed_at=None)) | Exists(entries)
    return rows.filter(is_own | (is_named & Q(was_held))).annotate(
        **{
            name: ExpressionWrapper(condition, BooleanField())
            for name, condition in zip(_SEEN, (is_placed, Q(is_held), is_named), strict=True)
        }
    )


def digests_shown(rows: Collection[RunningImage]) -> dict[int, str]:
    """Return {id of the row: the digest to show}, of rows of `running_images_visible_to`.

    What a report names by the digest of its configuration gets the digest of the image. A reader who cannot see the
    image gets what was reported, or "" when that is not kept any more: the same whether we know the image or not.
    """
    hidden = [row for row in rows if not row.is_image_seen and row.digest]
    ends = {row.until for row in hidden if row.until is not None}
    names = ("cluster", "namespace", "workload_kind", "workload_name", "reference", "digest")
    reported: dict[tuple[Any, ...], str] = {}
    if hidden:
        of = {"cluster__in": {row.cluster_id for row in hidden}, "namespace__in": {row.namespace for row in hidden}}
        same = RunningContainer.objects.filter(**of, digest__in={row.digest for row in hidden})
        for kept in (same.filter(until=None), same.filter(until__in=ends)):
            for *key, digests in kept.values_list(*names, "digests").distinct():
                reported.setdefault(tuple(key), digests[0] if digests else "")
    found = {row.pk: row.digest for row in rows}
    for row in hidden:
        place = (row.cluster_id, row.namespace, row.workload_kind, row.workload_name, row.reference, row.digest)
        found[row.pk] = reported.get(place, "")
    return found


def with_digest(rows: QuerySet[RunningImage], digest: str) -> QuerySet[RunningImage]:
    """Return those rows of `running_images_visible_to` for which `digests_shown` returns this digest."""
    names = ("cluster", "namespace", "workload_kind", "workload_name", "reference", "digest")
    reported = RunningContainer.objects.filter(**{name: OuterRef(name) for name in names}, digests__0=digest)
    is_reported = Exists(reported.filter(until=None)) | Exists(reported.filter(until=OuterRef("until")))
    return rows.filter(Q(is_image_seen=True, digest=digest) | Q(Q(is_image_seen=False) & Q(is_reported)))


def at_time(rows: QuerySet[RunningImage], moment: datetime | None) -> QuerySet[RunningImage]:
    """Return what ran at a time; what runs now for None."""
    if moment is None:
        return rows.filter(until=None)
    return rows.filter(Q(until=None) | Q(until__gt=moment), since__lte=moment)


def running_of(image: Image, actor: User) -> QuerySet[RunningImage]:
    """Return where an image runs or ran: under its own digest, its platforms', or that of an index with it."""
    around = IndexEntry.objects.filter(child=image).values("index")
    below = IndexEntry.objects.filter(index=image).values("child")
    rows = running_images_visible_to(actor)
    return rows.filter(Q(image=image) | Q(platform=image) | Q(image__in=below) | Q(image__in=around, platform=None))


def containers_of(row: RunningImage) -> QuerySet[RunningContainer]:
    """Return the live containers of a running image."""
    return RunningContainer.objects.filter(
        cluster=row.cluster_id, namespace=row.namespace, workload_kind=row.workload_kind, until=None,
        workload_name=row.workload_name, digest=row.digest, reference=row.reference,
    ).order_by("pod", "name")  # fmt: skip


@dataclass(frozen=True, slots=True)
class BundleSaid:
    """What the live reporters of a cluster say about the certificates that its webhooks trust."""

    names: tuple[str, ...]  # of the reporters that are live; imports do not count
    hashes: frozenset[str | None]  # None: one said nothing. "": webhooks of one do not all have the same
    since: datetime | None  # when the last of them began to say so

    def is_all(self, sha256: str) -> bool:
        """Return whether there is a live reporter, and all report this bundle."""
        return self.hashes == {sha256}

    @property
    def is_any(self) -> bool:
        """Return whether one of them said which certificates the webhooks trust."""
        return bool(self.hashes - {None})


def bundles_said(clusters: Iterable[int]) -> dict[int, BundleSaid]:
    """Return {cluster id: what its live reporters say}; clusters without one are left out."""
    found: dict[int, list[Reporter]] = {}
    rows = Reporter.objects.filter(
        cluster__in=clusters, is_import=False, ended_at=None, seen_at__gte=clock.now() - SILENT_AFTER
    )
    for row in rows.only("cluster_id", "name", "bundle_sha256", "bundle_at").order_by("name"):
        found.setdefault(row.cluster_id, []).append(row)
    return {
        cluster_id: BundleSaid(
            tuple(row.name for row in each),
            frozenset(row.bundle_sha256 for row in each),
            max((row.bundle_at for row in each if row.bundle_at is not None), default=None),
        )
        for cluster_id, each in found.items()
    }


def report_state(cluster: Cluster) -> str:
    """Return `never`, or the worst state of the cluster's reporters: silent, late, fresh, imported."""
    states = {reporter.state for reporter in Reporter.objects.filter(cluster=cluster)}
    return next((state for state in _ORDER if state in states), "never")
