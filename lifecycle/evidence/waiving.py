"""Which findings are waived: approved waivers accept them in every repository that has the image.

A waiver is an exception to one rule. One that names a finding and holds in all environments says that somebody accepts
this finding until a day, so the finding is `waived` and not open. One for a single environment says so only there: the
finding stays open, and the gate of that environment reads the waiver. See docs/adr/0023.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from django.db import connection
from django.db.models import Q

from lifecycle.core import clock
from lifecycle.evidence.models import WaivedFinding
from lifecycle.policies.models import Waiver
from lifecycle.registry.models import IndexEntry, RepositoryImage

_BATCH: Final = 2000

# Images share waivers only through repositories, so this begins with the waivers, which are few.
_FIND: Final = """
WITH given AS MATERIALIZED (
    SELECT id, repository_id, digest, advisory, package, until FROM lifecycle_waiver
    WHERE state = 'approved' AND until > now() AND advisory <> '' AND environment_id IS NULL
),
held AS MATERIALIZED (
    -- Where each platform manifest is, itself or in an index, by source repository.
    SELECT image.id AS image_id, top.id AS top_id, top.digest, coalesce(place.source_id, place.id) AS repository_id
    FROM unnest(%(ids)s::bigint[]) AS image(id)
    CROSS JOIN LATERAL (
        SELECT image.id AS id
        UNION SELECT entry.index_id FROM lifecycle_indexentry entry WHERE entry.child_id = image.id
    ) above
    JOIN lifecycle_image top ON top.id = above.id
    JOIN lifecycle_repositoryimage there ON there.image_id = top.id AND there.removed_at IS NULL
    JOIN lifecycle_repository place ON place.id = there.repository_id
),
places AS MATERIALIZED (
    SELECT image_id, count(DISTINCT repository_id) AS number FROM held GROUP BY image_id
),
covered AS MATERIALIZED (
    SELECT DISTINCT held.image_id, held.repository_id, given.id AS waiver_id, given.advisory, given.package, given.until
    FROM held JOIN given ON given.repository_id = held.repository_id AND given.digest IN ('', held.digest)
),
named AS (
    SELECT DISTINCT covered.image_id, covered.repository_id, package.id AS package_id, covered.advisory,
           covered.waiver_id, covered.until
    FROM covered
    JOIN lifecycle_imageinventory ii ON ii.image_id = covered.image_id
    JOIN lifecycle_inventorypackage ip ON ip.inventory_id = ii.inventory_id
    JOIN lifecycle_packageversion package ON package.id = ip.package_id AND covered.package IN (
        '', CASE WHEN package.namespace = '' THEN package.name ELSE package.namespace || '/' || package.name END
    )
    WHERE EXISTS (
        SELECT FROM lifecycle_match m JOIN lifecycle_advisory a ON a.id = m.advisory_id
        WHERE m.package_id = package.id AND m.valid_to IS NULL AND m.state = 'open'
          AND a.vulnerability = covered.advisory
    )
),
longest AS (
    -- In each repository, the waiver that ends last counts.
    SELECT DISTINCT ON (image_id, package_id, advisory, repository_id) * FROM named
    ORDER BY image_id, package_id, advisory, repository_id, until DESC, waiver_id
)
SELECT longest.image_id, package_id, advisory, (array_agg(waiver_id ORDER BY until, waiver_id))[1]
FROM longest JOIN places USING (image_id)
GROUP BY longest.image_id, package_id, advisory, places.number
HAVING count(*) = places.number
"""
# Waivers that name a finding of one of these package versions.
_NAMING: Final = """
SELECT DISTINCT given.id FROM lifecycle_waiver given
JOIN lifecycle_advisory a ON a.vulnerability = given.advisory
JOIN lifecycle_match m ON m.advisory_id = a.id AND m.valid_to IS NULL
WHERE given.state = 'approved' AND given.advisory <> '' AND given.environment_id IS NULL
  AND m.package_id = ANY(%(ids)s)
"""
_WITH_FINDING: Final = """
SELECT DISTINCT ii.image_id
FROM lifecycle_advisory a
JOIN lifecycle_match m ON m.advisory_id = a.id AND m.valid_to IS NULL
JOIN lifecycle_inventorypackage ip ON ip.package_id = m.package_id
JOIN lifecycle_imageinventory ii ON ii.inventory_id = ip.inventory_id
WHERE a.vulnerability = ANY(%(names)s) AND ii.image_id = ANY(%(ids)s)
"""


def is_in_use() -> bool:
    """Return whether a waiver accepts findings, or did until now. One query."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM lifecycle_waiver WHERE state = 'approved' AND advisory <> ''"
            " AND environment_id IS NULL) OR EXISTS (SELECT FROM lifecycle_waivedfinding)"
        )
        found: bool = cursor.fetchone()[0]
    return found


def images_apart(package_ids: Collection[int]) -> set[int]:
    """Return the platform manifests in which a waiver can accept a finding of these package versions, or did until now.

    In all others, the findings of a package version are the same. One query when no waiver accepts findings, else five.
    """
    if not package_ids or not is_in_use():
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_NAMING, {"ids": list(package_ids)})
        naming = [row[0] for row in cursor.fetchall()]
    stored = WaivedFinding.objects.filter(package__in=package_ids).values_list("image_id", flat=True)
    return {*stored, *(images_about(naming) if naming else ())}


def images_about(waiver_ids: Collection[int]) -> list[int]:
    """Return the platform manifests whose findings these waivers accept, accepted until now, or could accept."""
    waivers = Waiver.objects.filter(pk__in=waiver_ids, repository__isnull=False).exclude(advisory="")
    rows = list(waivers.values_list("repository_id", "advisory"))
    ids = set(WaivedFinding.objects.filter(waiver__in=waiver_ids).values_list("image_id", flat=True))
    if rows:
        repositories = {pk for pk, _ in rows}
        there = RepositoryImage.objects.filter(Q(repository__in=repositories) | Q(repository__source__in=repositories))
        tops = set(there.values_list("image_id", flat=True))
        below = IndexEntry.objects.filter(index__in=tops).values_list("child_id", flat=True)
        with connection.cursor() as cursor:
            cursor.execute(_WITH_FINDING, {"names": [name for _, name in rows], "ids": sorted({*tops, *below})})
            ids |= {row[0] for row in cursor.fetchall()}
    return sorted(ids)


def refresh(image_ids: Collection[int]) -> None:
    """Find again which findings of these platform manifests are waived, and store it.

    Runs in the caller's transaction. Three queries, and one when no waiver accepts findings.
    """
    ids = sorted(set(image_ids))
    if not ids or not is_in_use():
        return
    with connection.cursor() as cursor:
        cursor.execute(_FIND, {"ids": ids})
        wanted = {(image, package, name): waiver for image, package, name, waiver in cursor.fetchall()}
    stored = {(row.image_id, row.package_id, row.vulnerability): row for row in _rows(ids)}
    gone = [row.pk for key, row in stored.items() if wanted.get(key) != row.waiver_id]
    if gone:
        WaivedFinding.objects.filter(pk__in=gone).delete()
    kept = {key for key, row in stored.items() if wanted.get(key) == row.waiver_id}
    WaivedFinding.objects.bulk_create(
        [
            WaivedFinding(image_id=image, package_id=package, vulnerability=name, waiver_id=waiver)
            for (image, package, name), waiver in wanted.items()
            if (image, package, name) not in kept
        ],
        batch_size=_BATCH,
        ignore_conflicts=True,  # two refreshes at once write the same
    )


def _rows(image_ids: Collection[int]) -> list[WaivedFinding]:
    return list(WaivedFinding.objects.filter(image__in=image_ids))


def waived_in(image_ids: Collection[int]) -> set[tuple[int, int, str]]:
    """Return (image, package version, vulnerability) of what is waived in these platform manifests now. One query."""
    rows = WaivedFinding.objects.filter(image__in=image_ids, waiver__state="approved", waiver__until__gt=clock.now())
    return set(rows.values_list("image_id", "package_id", "vulnerability"))
