"""Since when namespaces are enforced. What was brought in before that, when anybody could write it, counts no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from lifecycle.clusters.models import Cluster, Mode, NamespaceBinding


def is_enforced(cluster: Cluster, binding: NamespaceBinding | None) -> bool:
    """Return whether images that may not run are refused under a binding; None: in namespaces without one."""
    if cluster.mode == Mode.OFF:
        return False
    if binding is None:
        return cluster.unbound == Cluster.Unbound.DENY and cluster.mode == Mode.ENFORCE
    return (binding.mode or cluster.mode) == Mode.ENFORCE


def note_enforcement(cluster: Cluster, now: datetime, bindings: Iterable[NamespaceBinding] = ()) -> None:
    """Note where enforcement begins or ends with new settings of a cluster; its own row is left to save."""
    cluster.unbound_enforced_at = (cluster.unbound_enforced_at or now) if is_enforced(cluster, None) else None
    for row in bindings:
        begins = (row.enforced_at or now) if is_enforced(cluster, row) else None
        if begins != row.enforced_at:
            NamespaceBinding.objects.filter(pk=row.pk).update(enforced_at=begins)


def carry_enforcement(
    cluster: Cluster, before: Sequence[NamespaceBinding], rows: Sequence[NamespaceBinding], now: datetime
) -> None:
    """Set since when each new binding of a cluster is enforced; the rows and the cluster are left to save.

    A new pattern begins now. The namespaces of a removed one fall to the others, or to none: these begin no earlier
    than enforcement did there.
    """
    old = {row.pattern: row for row in before}
    removed = [row for pattern, row in old.items() if pattern not in {each.pattern for each in rows}]
    fallen = [row.enforced_at or now for row in removed]
    for row in rows:
        if is_enforced(cluster, row):
            began = old[row.pattern].enforced_at if row.pattern in old else None
            row.enforced_at = max([began or now, *fallen])
    if is_enforced(cluster, None):
        cluster.unbound_enforced_at = max([cluster.unbound_enforced_at or now, *fallen])
