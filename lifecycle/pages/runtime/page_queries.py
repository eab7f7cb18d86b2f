"""What the page of what runs needs beside the rows: who reports, and which images the reader can open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Count, Q

from accounts.models import User
from lifecycle.alerts.queries import LIVE, alerts_visible_to, filtered
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.queries import clusters_visible_to
from lifecycle.inventory.models import Reporter, RunningImage
from lifecycle.registry.models import RepositoryImage

_STATES = ("silent", "late", "fresh", "imported", "ended")
_CLUSTERS_MAX = 50


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster with the worst state of its reporters, and its live alerts."""

    cluster: Cluster
    state: str
    alerts: int


def cluster_lines(actor: User) -> list[ClusterLine]:
    """Return the clusters that `actor` can see. Three queries."""
    clusters = list(clusters_visible_to(actor).order_by("slug")[:_CLUSTERS_MAX])
    seen = filtered(alerts_visible_to(actor), state=LIVE).filter(Q(is_place_seen=True), cluster__in=clusters)
    live = dict(seen.order_by().values_list("cluster").annotate(count=Count("pk")))
    states: dict[int, set[str]] = {}
    for reporter in Reporter.objects.filter(cluster__in=clusters):
        states.setdefault(reporter.cluster_id, set()).add(reporter.state)
    return [
        ClusterLine(
            row, next((state for state in _STATES if state in states.get(row.pk, ())), "never"), live.get(row.pk, 0)
        )
        for row in clusters
    ]


def places_of(rows: Iterable[RunningImage], actor: User) -> dict[int, tuple[str, str, str]]:
    """Return {id of the row: (team, repository, digest) of the image's page}, where the reader can open one."""
    wanted = {row.pk: (row.repository_id, row.image_id) for row in rows if row.image_id and row.repository_id}
    held = RepositoryImage.objects.filter(
        image__in={image for _, image in wanted.values()}, removed_at=None,
        repository__in=repositories_visible_to(actor).filter(pk__in={repository for repository, _ in wanted.values()}),
    )  # fmt: skip
    columns = ("repository", "image", "repository__team__slug", "repository__name", "image__digest")
    pages = {
        (repository, image): (team, name, digest)
        for repository, image, team, name, digest in held.values_list(*columns)
    }
    return {pk: pages[key] for pk, key in wanted.items() if key in pages}
