"""Aliases of advisories across all feeds, and the ranges that cannot be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Final

from django.db import connection
from django.db.models import QuerySet

from lifecycle.advisories.models import Advisory, AdvisoryName, AffectedInterval, Feed

_ALIAS_ROUNDS_MAX: Final = 50  # a longer chain of aliases is an error in a feed


# The records with these ids, and the records that have one of them as an alias.
_ALIAS_STEP: Final = """
SELECT a.osv_id, a.aliases, a.upstream FROM lifecycle_advisory a
WHERE a.osv_id = ANY(%(ids)s) AND a.withdrawn_at IS NULL AND a.tombstoned_at IS NULL
UNION ALL
SELECT a.osv_id, a.aliases, a.upstream
FROM lifecycle_advisoryname n JOIN lifecycle_advisory a ON a.id = n.advisory_id
WHERE n.name = ANY(%(ids)s) AND n.kind = 'alias' AND a.withdrawn_at IS NULL AND a.tombstoned_at IS NULL
"""


def named_by(name: str) -> QuerySet[AdvisoryName, int]:
    """Return the ids of the advisories that have `name` as an alias or upstream, for `pk__in`."""
    kinds = (AdvisoryName.Kind.ALIAS, AdvisoryName.Kind.UPSTREAM)
    return AdvisoryName.objects.filter(name=name, kind__in=kinds).values_list("advisory_id", flat=True)


def unreadable_ranges(feed: Feed) -> QuerySet[AffectedInterval]:
    """Return the version intervals of the feed's live advisories that cannot be judged, with their `problem`."""
    return AffectedInterval.objects.filter(
        is_unevaluated=True, advisory__feed=feed, advisory__withdrawn_at=None, advisory__tombstoned_at=None
    )


def current_names(osv_ids: Collection[str]) -> dict[str, set[str]]:
    """Return, for each id, the names under which its vulnerability counts now (`Advisory.vulnerability`).

    An id can be that of a record, or only an alias or the upstream of one. One query.
    """
    with connection.cursor() as cursor:
        cursor.execute(_NAMES, {"ids": sorted(osv_ids)})
        rows = cursor.fetchall()
    names: dict[str, set[str]] = defaultdict(set)
    for osv_id, vulnerability in rows:
        names[osv_id].add(vulnerability)
    return dict(names)


_NAMES: Final = """
SELECT a.osv_id, a.vulnerability FROM lifecycle_advisory a WHERE a.osv_id = ANY(%(ids)s)
UNION
SELECT n.name, a.vulnerability FROM lifecycle_advisoryname n JOIN lifecycle_advisory a ON a.id = n.advisory_id
WHERE n.name = ANY(%(ids)s) AND (n.kind = 'alias' OR (n.kind = 'upstream' AND cardinality(a.upstream) = 1))
"""


def aliases_of(osv_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return, for each id, the other ids of its vulnerability, sorted: all aliases and its own `upstream`.

    Aliases are symmetric and transitive over all feeds. Withdrawn and tombstoned records are ignored.
    """
    neighbours: dict[str, set[str]] = defaultdict(set)
    upstream: dict[str, set[str]] = defaultdict(set)
    frontier, seen = set(osv_ids), set(osv_ids)
    for _ in range(_ALIAS_ROUNDS_MAX):
        if not frontier:
            break
        with connection.cursor() as cursor:
            cursor.execute(_ALIAS_STEP, {"ids": sorted(frontier)})
            rows = cursor.fetchall()
        frontier = set()
        for osv_id, aliases, above in rows:
            upstream[osv_id].update(above)
            for alias in aliases:
                neighbours[osv_id].add(alias)
                neighbours[alias].add(osv_id)
                frontier.update({osv_id, alias} - seen)
        seen |= frontier
    return {osv_id: tuple(sorted((_reachable(osv_id, neighbours) | upstream[osv_id]) - {osv_id})) for osv_id in osv_ids}


def _reachable(start: str, neighbours: dict[str, set[str]]) -> set[str]:
    reached, todo = {start}, [start]
    while todo:
        fresh = neighbours.get(todo.pop(), set()) - reached
        reached |= fresh
        todo.extend(fresh)
    return reached


def own_ids() -> set[str]:
    """Return the ids of the private advisories that count now. One query."""
    rows = Advisory.objects.filter(feed__kind=Feed.Kind.OWN, tombstoned_at=None)
    return set(rows.values_list("osv_id", flat=True))
