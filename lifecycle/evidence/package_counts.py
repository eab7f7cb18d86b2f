"""Count again what a change of matches changed, for any number of images.

A new advisory can be about a package that most images have. To count all of these images whole takes a minute for
60,000 images, because it reads every finding of each. The findings of one package version are the same in all images,
so the difference is computed once for the package version, and added to the images. Images for which more than that
can differ are counted whole: see `_Changes`.

A transaction that counts images while another one changes matches does not see these yet, and is not seen either.
So each count shares a lock that a change of matches takes for itself, and what could not share it is counted again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection, transaction

from lifecycle.core import clock, locks
from lifecycle.core.severities import SEVERITIES
from lifecycle.evidence import waiving
from lifecycle.evidence.risk import (
    COUNTED,
    COUNTED_SQL,
    COUNTING_LOCK,
    NOT_MATCHED,
    UNREADABLE_SQL,
    images_with_packages,
    refresh_risk,
)
from lifecycle.vex import effects

_WHOLE_UP_TO: Final = 500  # images; so few are counted whole in less than a second, which needs no trust in old counts
_NAMES: Final = tuple(COUNTED)
_COLUMNS: Final = ", ".join(_NAMES)

_UPDATE: Final = f"""
WITH package AS MATERIALIZED (SELECT unnest(%(ids)s::bigint[]) AS package_id),
{COUNTED_SQL},
now AS MATERIALIZED (
    SELECT p.id AS package_id, {", ".join(f"coalesce(counted.{name}, 0)::integer AS {name}" for name in _NAMES)},
           -- Not whether a feed covers it: when that changes, all images are counted.
           CASE WHEN p.problem <> '' THEN p.problem
                WHEN p.is_unmatched THEN '{NOT_MATCHED}'
                WHEN EXISTS (SELECT FROM lifecycle_match m
                             WHERE m.package_id = p.id AND m.valid_to IS NULL AND m.state = 'unknown')
                THEN '{UNREADABLE_SQL}' ELSE '' END AS reason
    FROM package JOIN lifecycle_packageversion p ON p.id = package.package_id LEFT JOIN counted USING (package_id)
),
old AS MATERIALIZED (SELECT * FROM lifecycle_packagecounts WHERE package_id = ANY(%(ids)s) FOR UPDATE),
stored AS (
    INSERT INTO lifecycle_packagecounts (package_id, {_COLUMNS}, reason)
    SELECT package_id, {_COLUMNS}, reason FROM now
    ON CONFLICT (package_id) DO UPDATE
    SET reason = excluded.reason, {", ".join(f"{name} = excluded.{name}" for name in _NAMES)}
)
SELECT now.package_id,
       CASE WHEN old.reason IS NOT NULL THEN old.reason = now.reason
            -- Never counted so. If it had no match, images counted nothing for it.
            ELSE %(since)s::timestamptz IS NOT NULL AND now.reason = '' AND NOT EXISTS (
                SELECT FROM lifecycle_match m WHERE m.package_id = now.package_id AND m.valid_from < %(since)s
                AND (m.valid_to IS NULL OR m.valid_to >= %(since)s)
            ) END,
       {", ".join(f"now.{name} - coalesce(old.{name}, 0)" for name in _NAMES)}
FROM now LEFT JOIN old USING (package_id)
"""  # noqa: S608 -- only constants of our modules are inserted

_ADD: Final = f"""
WITH changed AS MATERIALIZED (
    SELECT * FROM unnest(%(packages)s::bigint[], {", ".join(f"%({name})s::integer[]" for name in _NAMES)})
        AS changed(package_id, {_COLUMNS})
),
has AS MATERIALIZED (
    -- Once, even if several layers of an image have the package version.
    SELECT DISTINCT ii.image_id, ip.package_id
    FROM changed
    JOIN lifecycle_inventorypackage ip ON ip.package_id = changed.package_id
    JOIN lifecycle_imageinventory ii ON ii.inventory_id = ip.inventory_id
),
summed AS MATERIALIZED (
    SELECT has.image_id, {", ".join(f"sum(changed.{name}) AS {name}" for name in _NAMES)}
    FROM has JOIN changed USING (package_id)
    WHERE has.image_id <> ALL(%(but)s)
    GROUP BY has.image_id
)
UPDATE lifecycle_image image
SET risk_at = %(now)s, {", ".join(f"{name}_count = image.{name}_count + summed.{name}" for name in _NAMES)}
FROM summed WHERE image.id = summed.image_id
"""  # noqa: S608 -- only constants of our modules are inserted


@dataclass(frozen=True, slots=True)
class _Changes:
    """What changed in package versions: by how much, or that their images must be counted whole.

    Whole: package versions that could be judged before and cannot now or the reverse, that had matches but were never
    counted so, and those that a VEX statement names, which can decide differently for each image. A waiver decides only
    in some repositories: `count_changed` counts whole what these hold.
    """

    whole: frozenset[int]
    added: dict[int, tuple[int, ...]]  # in the order of COUNTED


def count_changed(package_ids: Collection[int], since: datetime | None) -> list[int]:
    """Update the stored counts of all images with these package versions, whose matches changed; return their ids.

    Matches older than `since` were there before the change; None: unknown.

    Call it in the transaction that changed the matches.
    """
    with transaction.atomic():
        locks.wait_for(COUNTING_LOCK)
        changes = _changes(sorted(package_ids), since)
        images = images_with_packages(package_ids)
        if len(images) <= _WHOLE_UP_TO:
            refresh_risk(images)
            return images
        apart = waiving.images_apart(package_ids) & set(images)
        whole = sorted({*images_with_packages(changes.whole), *apart})
        refresh_risk(whole)
        if changes.added:
            _add(changes.added, images, whole)
    return images


def _changes(package_ids: list[int], since: datetime | None) -> _Changes:
    with connection.cursor() as cursor:
        cursor.execute(_UPDATE, {"ids": package_ids, "since": since, "severities": list(SEVERITIES)})
        rows = cursor.fetchall()
    named = effects.packages_named(package_ids)
    whole = frozenset(pk for pk, is_same_reason, *_ in rows if not is_same_reason or pk in named)
    return _Changes(whole, {pk: tuple(counts) for pk, _, *counts in rows if pk not in whole})


def _add(added: dict[int, tuple[int, ...]], images: list[int], whole: list[int]) -> None:
    columns = {name: [counts[place] for counts in added.values()] for place, name in enumerate(_NAMES)}
    with connection.cursor() as cursor:
        # One lock order, against deadlocks.
        cursor.execute("SELECT FROM lifecycle_image WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [images])
        cursor.execute(_ADD, {"packages": list(added), "but": whole, "now": clock.now(), **columns})
