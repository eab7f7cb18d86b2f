"""What was known, and is known, of images that run: findings at a time."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from django.db import connection

from lifecycle.core.severities import COUNTED, SEVERITIES, UNKNOWN
from lifecycle.evidence.open_findings import PREFERENCE_SQL, not_suppressed_sql
from lifecycle.inventory.models import RunningImage

# Without a time: the open findings of now, as everywhere. With one: those that were matched then. Statements (VEX)
# count as they are now, because the past ones are not kept for each image.
_COUNTS: Final = f"""
SELECT image.id, found.severity, count(*)
FROM lifecycle_image image
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (m.package_id, a.vulnerability) m.severity
    FROM lifecycle_imageinventory ii
    JOIN lifecycle_inventorypackage ip ON ip.inventory_id = ii.inventory_id
    JOIN lifecycle_match m ON m.package_id = ip.package_id AND m.state = 'open'
    JOIN lifecycle_advisory a ON a.id = m.advisory_id
    WHERE ii.image_id = image.id AND {{when}}
      AND {not_suppressed_sql("image.id", "m.package_id", "a.vulnerability")}
    ORDER BY m.package_id, a.vulnerability, {PREFERENCE_SQL}
) found
WHERE image.id = ANY(%(ids)s::bigint[])
GROUP BY image.id, found.severity
"""  # noqa: S608 -- only constants of our modules are inserted
_NOW: Final = "m.valid_to IS NULL"
_THEN: Final = "m.valid_from <= %(at)s AND (m.valid_to IS NULL OR m.valid_to > %(at)s)"


def known_of(rows: Collection[RunningImage], at: datetime | None = None) -> dict[int, dict[str, int]]:
    """Return {id of the row: open findings by severity}, of now or a time, for rows with a scanned image."""
    ids = {row.pk: row.platform_id or row.image_id for row in rows}
    wanted = sorted({pk for pk in ids.values() if pk is not None})
    if not wanted:
        return {}
    counts: dict[int, dict[str, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM lifecycle_image WHERE id = ANY(%s) AND scanned_at IS NOT NULL", [wanted])
        for (pk,) in cursor.fetchall():
            counts[pk] = dict.fromkeys(COUNTED, 0)
        sql = _COUNTS.format(when=_NOW if at is None else _THEN)
        cursor.execute(sql, {"ids": sorted(counts), "at": at, "severities": list(SEVERITIES)})
        for pk, severity, count in cursor.fetchall():
            counts[pk][severity if severity in COUNTED else UNKNOWN] += count
    return {row_id: counts[pk] for row_id, pk in ids.items() if pk in counts}
