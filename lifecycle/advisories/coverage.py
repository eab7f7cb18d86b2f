"""Which ecosystems and releases the stored advisories cover. Packages outside of them cannot be judged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q

from lifecycle import events
from lifecycle.advisories.models import Coverage
from lifecycle.core import locks

_LOCK: Final = 0x636F7665  # one writer at a time: a run that read before another committed would undo it

# For SQL over lifecycle_packageversion p: an advisory of its ecosystem, and of its release or of all, is stored.
# A package that belongs to a distribution's package is judged as that one, which is in the image as well.
COVERED_SQL: Final = """
(p.owner <> '' OR EXISTS (
    SELECT FROM lifecycle_coverage c WHERE c.ecosystem = p.ecosystem AND c.release IN ('', p.release)))
"""
_REFRESH: Final = """
WITH stored AS MATERIALIZED (
    SELECT DISTINCT ai.ecosystem, ai.release
    FROM lifecycle_affectedinterval ai JOIN lifecycle_advisory a ON a.id = ai.advisory_id
    JOIN lifecycle_feed feed ON feed.id = a.feed_id
    -- A private advisory about one package says nothing of the others.
    WHERE a.tombstoned_at IS NULL AND feed.kind <> 'own'
),
lost AS (
    DELETE FROM lifecycle_coverage c
    WHERE NOT EXISTS (SELECT FROM stored s WHERE (s.ecosystem, s.release) = (c.ecosystem, c.release))
    RETURNING c.ecosystem, c.release
),
added AS (
    INSERT INTO lifecycle_coverage (ecosystem, release) SELECT ecosystem, release FROM stored
    ON CONFLICT DO NOTHING
    RETURNING ecosystem, release
)
SELECT ecosystem, release FROM lost UNION SELECT ecosystem, release FROM added ORDER BY 1, 2
"""


@transaction.atomic
def refresh_coverage() -> tuple[tuple[str, str], ...]:
    """Store what the advisories cover now, and publish CoverageChanged; return the (ecosystem, release) that changed.

    Reads all intervals, which takes less than a second for a million of them. Call it once for each folder of a feed.
    """
    locks.wait_for(_LOCK)
    with connection.cursor() as cursor:
        cursor.execute(_REFRESH)
        changed = tuple((ecosystem, release) for ecosystem, release in cursor.fetchall())
    if changed:
        events.publish(events.CoverageChanged(changed))
    return changed


def uncovered(pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of the (ecosystem, release) pairs that no stored advisory covers; one query."""
    wanted = {(ecosystem, release) for ecosystem, release in pairs if ecosystem}
    if not wanted:
        return set()
    rows = Coverage.objects.filter(ecosystem__in={ecosystem for ecosystem, _ in wanted})
    covered = set(rows.values_list("ecosystem", "release"))
    return {(name, release) for name, release in wanted if not covered & {(name, ""), (name, release)}}


def is_covered() -> Q:
    """Return the condition of COVERED_SQL for a query of package versions."""
    rows = Coverage.objects.filter(ecosystem=OuterRef("ecosystem"))
    return ~Q(owner="") | Q(Exists(rows.filter(Q(release="") | Q(release=OuterRef("release")))))


def no_feed(ecosystem: str, release: str) -> str:
    """Return the reason why a package of this ecosystem and release cannot be judged. `NO_FEED_SQL` says the same."""
    return f"no advisories stored for {ecosystem} {release}".rstrip()


NO_FEED_SQL: Final = "rtrim('no advisories stored for ' || p.ecosystem || ' ' || p.release)"
