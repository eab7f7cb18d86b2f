"""Images with a malicious package (OSV's `MAL-` records) are quarantined at once, whatever the severity says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from accounts.queries import system_user
from lifecycle.core.errors import Conflict, LifecycleError
from lifecycle.lineage.models import Derivation
from lifecycle.quarantine import services as quarantines
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covers_of
from lifecycle.registry.models import Image

_SHOWN: Final = 5  # packages in the reason

# Live matches with records of malicious packages. A package can be one by another name too (GHSA with a MAL- alias).
_MALICIOUS: Final = """
SELECT DISTINCT m.package_id, p.name, p.version,
       CASE WHEN a.osv_id LIKE 'MAL-%%' THEN a.osv_id
            ELSE (SELECT name FROM unnest(a.aliases) AS name WHERE name LIKE 'MAL-%%' ORDER BY name LIMIT 1) END
FROM lifecycle_match m
JOIN lifecycle_advisory a ON a.id = m.advisory_id
JOIN lifecycle_packageversion p ON p.id = m.package_id
WHERE m.package_id {scope} AND m.valid_to IS NULL AND m.state = 'open'
  AND (a.osv_id LIKE 'MAL-%%' OR EXISTS (SELECT FROM unnest(a.aliases) AS name WHERE name LIKE 'MAL-%%'))
"""
_IN_IMAGES: Final = """
IN (WITH RECURSIVE below(id) AS (
        SELECT unnest(%(ids)s::bigint[])
        UNION
        SELECT e.child_id FROM below b JOIN lifecycle_indexentry e ON e.index_id = b.id
    )
    SELECT ip.package_id FROM ({images}) AS wanted
    JOIN lifecycle_imageinventory ii ON ii.image_id = wanted.id
    JOIN lifecycle_inventorypackage ip ON ip.inventory_id = ii.inventory_id)
"""
_THEMSELVES: Final = _IN_IMAGES.format(images="SELECT id FROM below")
_AND_BUILT_ON: Final = _IN_IMAGES.format(
    images="""
    SELECT id FROM below UNION
    SELECT a.descendant_id FROM below b JOIN lifecycle_ancestry a ON a.ancestor_id = b.id"""
)
_IMAGES_WITH: Final = """
SELECT DISTINCT ii.image_id, ip.package_id FROM lifecycle_inventorypackage ip
JOIN lifecycle_imageinventory ii ON ii.inventory_id = ip.inventory_id
WHERE ip.package_id = ANY(%(ids)s)
"""
# What people judged about each image: its own released quarantines, those of its bases, and its exemptions. As for what
# a quarantine covers, a base that only a label claims does not count, and an index is exempt with its platforms.
_JUDGED: Final = """
WITH RECURSIVE up(root, id) AS (
    SELECT id, id FROM unnest(%(ids)s::bigint[]) AS id
    UNION
    SELECT u.root, d.base_id
    FROM up u JOIN lifecycle_derivation d ON d.derived_id = u.id AND d.confidence IN ('high', 'medium')
),
place(root, id) AS (
    SELECT id, id FROM unnest(%(ids)s::bigint[]) AS id
    UNION
    SELECT p.root, e.index_id FROM place p JOIN lifecycle_indexentry e ON e.child_id = p.id
)
SELECT up.root, q.incident FROM up JOIN lifecycle_quarantine q ON q.image_id = up.id AND q.released_at IS NOT NULL
UNION
SELECT place.root, q.incident FROM place
JOIN lifecycle_quarantineexemption x ON x.image_id = place.id JOIN lifecycle_quarantine q ON q.id = x.quarantine_id
"""


@dataclass(frozen=True, slots=True, order=True)
class Malicious:
    """A package version that a record calls malicious."""

    name: str
    version: str
    record: str

    @property
    def words(self) -> str:
        return f"{self.name} {self.version} ({self.record})"


def malicious_packages(package_ids: Collection[int]) -> dict[int, list[Malicious]]:
    """Return which of these package versions are malicious, with the records that say so."""
    return _malicious("= ANY(%(ids)s)", package_ids)


def malicious_packages_in(image_ids: Collection[int]) -> dict[int, list[Malicious]]:
    """Return the malicious package versions of these images and of the platforms of an index, with their records.

    One query.
    """
    return _malicious(_THEMSELVES, image_ids)


def malicious_packages_under(image_id: int) -> dict[int, list[Malicious]]:
    """Return the same for an image and all images built on it. One query."""
    return _malicious(_AND_BUILT_ON, [image_id])


def _malicious(scope: str, ids: Collection[int]) -> dict[int, list[Malicious]]:
    found: dict[int, list[Malicious]] = defaultdict(list)
    for package_id, *fields in _rows(_MALICIOUS.format(scope=scope), ids):
        found[package_id].append(Malicious(*fields))
    return dict(found)


def hold_images(package_ids: Collection[int]) -> list[Quarantine]:
    """Quarantine the images that contain a malicious one of these package versions; return the new quarantines.

    An image that is built on one quarantined for the same record is covered already. What people released or exempted
    for the same record stays free, also when they released its base. Safe to run twice.
    """
    malicious = malicious_packages(package_ids)
    reasons: dict[int, set[Malicious]] = defaultdict(set)
    for image_id, package_id in _rows(_IMAGES_WITH, malicious):
        reasons[image_id].update(malicious[package_id])
    derived = set(
        Derivation.objects.filter(
            derived__in=reasons, base__in=reasons, confidence__in=("high", "medium")
        ).values_list("derived_id", flat=True)
    )  # fmt: skip
    made = []
    for image_ids in (sorted(reasons.keys() - derived), sorted(derived)):
        fresh = _uncovered(_not_judged({pk: reasons[pk] for pk in image_ids}))
        images = Image.objects.filter(pk__in=fresh).in_bulk()
        made += [row for pk, found in fresh.items() if (row := _hold(images[pk], sorted(found))) is not None]
    return made


def _not_judged(reasons: Mapping[int, set[Malicious]]) -> dict[int, set[Malicious]]:
    """Return what people have not judged yet, for the images that have such records."""
    judged: dict[int, set[str]] = defaultdict(set)
    for image_id, incident in _rows(_JUDGED, reasons):
        judged[image_id].update(incident.split())
    fresh = {pk: {item for item in found if item.record not in judged[pk]} for pk, found in reasons.items()}
    return {pk: found for pk, found in fresh.items() if found}


def _uncovered(reasons: Mapping[int, set[Malicious]]) -> dict[int, set[Malicious]]:
    """Leave out the images that a live quarantine covers for one of these records.

    Another quarantine frees no image: whoever lifts it knows nothing of the malicious package.
    """
    covers = covers_of(reasons)
    ids = {cover.quarantine_id for found in covers.values() for cover in found}
    rows = Quarantine.objects.filter(pk__in=ids).values_list("pk", "incident")
    incidents = {pk: set(incident.split()) for pk, incident in rows}
    return {
        pk: found
        for pk, found in reasons.items()
        if not any(incidents[cover.quarantine_id] & {item.record for item in found} for cover in covers.get(pk, ()))
    }


def _hold(image: Image, fresh: Sequence[Malicious]) -> Quarantine | None:
    """Quarantine an image; None when it cannot be."""
    more = f" and {len(fresh) - _SHOWN} more" if len(fresh) > _SHOWN else ""
    words = ", ".join(item.words for item in fresh[:_SHOWN])
    reason = f"Malicious package: {words}{more}. Remove it, rotate all secrets that it could read, and rebuild."
    try:
        return quarantines.quarantine(image.digest, actor=system_user(), reason=reason, incident=_incident(fresh))
    except Conflict:  # it is quarantined itself: when that ends, `handlers.hold_again` looks again
        return None
    except LifecycleError:  # it is in no repository any more; when it is pushed again, `handlers` looks again
        return None


def _incident(fresh: Sequence[Malicious]) -> str:
    """Return the names of all records, because a release counts for these; as many as an incident has room for."""
    text = ""
    for record in dict.fromkeys(item.record for item in fresh):
        if len(longer := f"{text} {record}".strip()) <= quarantines.INCIDENT_MAX:
            text = longer
    return text


def _rows(sql: str, ids: Collection[int]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {"ids": list(ids)})
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
