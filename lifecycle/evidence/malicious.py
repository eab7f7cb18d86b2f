"""Images with a malicious package (OSV's `MAL-` records) are quarantined at once, whatever the severity says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from accounts.queries import system_user
from lifecycle.core.errors import Conflict, LifecycleError
from lifecycle.lineage.models import Derivation
from lifecycle.quarantine import services as quarantines
from lifecycle.quarantine.models import Quarantine, QuarantineExemption
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
IN (SELECT ip.package_id FROM lifecycle_imageinventory ii
    JOIN lifecycle_inventorypackage ip ON ip.inventory_id = ii.inventory_id WHERE ii.image_id = ANY(%(ids)s))
"""
_IMAGES_WITH: Final = """
SELECT DISTINCT ii.image_id, ip.package_id FROM lifecycle_inventorypackage ip
JOIN lifecycle_imageinventory ii ON ii.inventory_id = ip.inventory_id
WHERE ip.package_id = ANY(%(ids)s)
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
    """Return the malicious package versions of these platform manifests, with the records that say so."""
    return _malicious(_IN_IMAGES, image_ids)


def _malicious(scope: str, ids: Collection[int]) -> dict[int, list[Malicious]]:
    found: dict[int, list[Malicious]] = defaultdict(list)
    for package_id, *fields in _rows(_MALICIOUS.format(scope=scope), ids):
        found[package_id].append(Malicious(*fields))
    return dict(found)


def hold_images(package_ids: Collection[int]) -> list[Quarantine]:
    """Quarantine the images that contain a malicious one of these package versions; return the new quarantines.

    An image that is built on a quarantined one is covered already. What people released or exempted for the same record
    stays free. Safe to run twice.
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
        free = _uncovered(image_ids)
        images = Image.objects.filter(pk__in=free).in_bulk()
        made += [row for pk in free if (row := _hold(images[pk], sorted(reasons[pk]))) is not None]
    return made


def _uncovered(image_ids: Collection[int]) -> list[int]:
    """Return the images that no live quarantine covers, and that nobody exempted from one."""
    covered = covers_of(image_ids)
    exempt = set(
        QuarantineExemption.objects.filter(image__in=image_ids, quarantine__released_at=None).values_list(
            "image_id", flat=True
        )
    )
    return [pk for pk in image_ids if pk not in covered and pk not in exempt]


def _hold(image: Image, found: list[Malicious]) -> Quarantine | None:
    """Quarantine an image; None when people released it for each of these records, or when it cannot be."""
    incidents = Quarantine.objects.filter(image=image, released_at__isnull=False).values_list("incident", flat=True)
    judged = {record for incident in incidents for record in incident.split()}
    fresh = [item for item in found if item.record not in judged]
    if not fresh:
        return None
    more = f" and {len(fresh) - _SHOWN} more" if len(fresh) > _SHOWN else ""
    words = ", ".join(item.words for item in fresh[:_SHOWN])
    reason = f"Malicious package: {words}{more}. Remove it, rotate all secrets that it could read, and rebuild."
    incident = " ".join(dict.fromkeys(item.record for item in fresh[:_SHOWN]))
    try:
        return quarantines.quarantine(image.digest, actor=system_user(), reason=reason, incident=incident)
    except Conflict:  # somebody was faster
        return None
    except LifecycleError:  # it is in no repository any more: nobody can promote it or build on it
        return None


def _rows(sql: str, ids: Collection[int]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {"ids": list(ids)})
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
