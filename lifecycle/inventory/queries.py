"""What runs where, as far as a reader can see it: in clusters of their teams, and images of their repositories."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q, QuerySet

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.queries import clusters_visible_to
from lifecycle.inventory.models import Reporter, RunningContainer, RunningImage
from lifecycle.registry.models import Image, IndexEntry

_ORDER = ("silent", "late", "fresh", "imported")


def running_images_visible_to(actor: User) -> QuerySet[RunningImage]:
    """Return the intervals of images in clusters that `actor` can see, or whose name is a repository they can see.

    The digest alone is not enough: a team with the same public image must not learn where others run it.
    """
    rows = RunningImage.objects.select_related("cluster__team", "environment__team", "image", "repository__team")
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return rows
    clusters = clusters_visible_to(actor).order_by().values("pk")
    return rows.filter(Q(cluster__in=clusters) | Q(repository__in=repositories_visible_to(actor).values("pk")))


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


def report_state(cluster: Cluster) -> str:
    """Return `never`, or the worst state of the cluster's reporters: silent, late, fresh, imported."""
    states = {reporter.state for reporter in Reporter.objects.filter(cluster=cluster)}
    return next((state for state in _ORDER if state in states), "never")
