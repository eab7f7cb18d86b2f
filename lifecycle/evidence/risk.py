"""The counts that each image stores: open findings, and packages that could not be judged. Here, images are counted
whole; `package_counts` adds what changed in a few package versions to any number of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from django.db import connection, transaction

from accounts.queries import system_user
from lifecycle.advisories.coverage import COVERED_SQL, NO_FEED_SQL
from lifecycle.core import clock, locks
from lifecycle.core.severities import SEVERITIES
from lifecycle.evidence import waiving
from lifecycle.evidence.kinds import RECOUNT
from lifecycle.evidence.open_findings import LIVE_SQL, PREFERENCE_SQL, not_decided_sql
from lifecycle.jobs import services as jobs
from lifecycle.vex import effects

_RISK_BATCH: Final = 2000
_LATER: Final = timedelta(seconds=5)
COUNTING_LOCK: Final = 0x636F756E  # shared by each count; for itself, who changed matches (package_counts)


def images_with_packages(package_ids: Collection[int]) -> list[int]:
    """Return the ids of the images whose inventories contain any of these package versions."""
    if not package_ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT ii.image_id FROM lifecycle_inventorypackage ip"
            " JOIN lifecycle_imageinventory ii ON ii.inventory_id = ip.inventory_id"
            " WHERE ip.package_id = ANY(%s)",
            [list(package_ids)],
        )
        return [row[0] for row in cursor.fetchall()]


NO_PURL: Final = "no usable package URL"
NOT_MATCHED: Final = "not yet checked against the advisories"
UNREADABLE: Final = "an advisory's affected range cannot be read"
UNREADABLE_SQL: Final = UNREADABLE.replace("'", "''")
_REASONS_MAX: Final = 20  # per image; an image can name any number of distributions and package types

COUNTED: Final = {
    "critical": "found.severity = 'critical'",
    "high": "found.severity = 'high'",
    "medium": "found.severity = 'medium'",
    "low": "found.severity = 'low'",
    "unknown": "found.severity IN ('none', 'unknown')",
    "fixable": "found.fixed_version <> ''",
}
COUNTS_SQL: Final = ", ".join(f"count(*) FILTER (WHERE {condition}) AS {name}" for name, condition in COUNTED.items())
_LEFT: Final = ", ".join(
    f"coalesce(sum(counted.{name}), 0) - coalesce(min(suppressed.{name}), 0) AS {name}" for name in COUNTED
)

# What counts of each package version in the relation `package (package_id)`.
COUNTED_SQL: Final = f"""
found AS MATERIALIZED (
    SELECT DISTINCT ON (m.package_id, a.vulnerability) m.package_id, a.vulnerability, m.severity, m.fixed_version
    FROM package
    JOIN lifecycle_match m ON m.package_id = package.package_id AND {LIVE_SQL}
    JOIN lifecycle_advisory a ON a.id = m.advisory_id
    ORDER BY m.package_id, a.vulnerability, {PREFERENCE_SQL}
),
counted AS MATERIALIZED (SELECT found.package_id, {COUNTS_SQL} FROM found GROUP BY found.package_id)
"""  # noqa: S608 -- only constants of our modules are inserted

# And why one could not be judged.
_UNJUDGED: Final = f"""
unjudged AS MATERIALIZED (
    SELECT p.id AS package_id,
           -- The version in "invalid dpkg version: ..." would make each package its own reason.
           CASE WHEN p.problem LIKE 'invalid %%' THEN split_part(p.problem, ':', 1)
                WHEN p.problem <> '' THEN p.problem
                WHEN NOT {COVERED_SQL} THEN {NO_FEED_SQL}
                WHEN p.is_unmatched THEN '{NOT_MATCHED}'
                ELSE '{UNREADABLE_SQL}' END AS reason
    FROM package JOIN lifecycle_packageversion p ON p.id = package.package_id
    WHERE p.problem <> '' OR p.is_unmatched OR NOT {COVERED_SQL} OR EXISTS (
        SELECT FROM lifecycle_match m WHERE m.package_id = p.id AND m.valid_to IS NULL AND m.state = 'unknown'
    )
)
"""  # noqa: S608 -- only constants of our modules are inserted

# Images share inventories, and a package version has the same findings in each image. So each inventory is read once
# and each package version is judged once, for any number of images. For 100,000 images with 245 findings each, this
# takes a tenth of the time of counting image by image.
_RISK: Final = f"""
WITH carried AS MATERIALIZED (
    SELECT image_id, inventory_id FROM lifecycle_imageinventory WHERE image_id = ANY(%(ids)s)
),
held AS MATERIALIZED (
    SELECT shared.inventory_id, inside.package_id
    FROM (SELECT DISTINCT inventory_id FROM carried) shared
    CROSS JOIN LATERAL (
        -- OFFSET 0 limits the planner to these inventories. Else it reads all inventories with a matched package.
        SELECT package_id FROM lifecycle_inventorypackage ip WHERE ip.inventory_id = shared.inventory_id OFFSET 0
    ) inside
),
package AS MATERIALIZED (SELECT DISTINCT package_id FROM held),
{COUNTED_SQL},
{_UNJUDGED},
noted AS (SELECT package_id FROM counted UNION SELECT package_id FROM unjudged),
has AS MATERIALIZED (
    SELECT DISTINCT carried.image_id, held.package_id
    FROM carried JOIN held USING (inventory_id) JOIN noted USING (package_id)
),
-- What VEX statements suppress and waivers accept differs from image to image, and is little: it is taken off the
-- sums, once for a finding that has both.
closed AS MATERIALIZED (
    SELECT image_id, package_id, vulnerability FROM lifecycle_vexeffect WHERE image_id = ANY(%(ids)s) AND suppresses
    UNION SELECT image_id, package_id, vulnerability FROM lifecycle_waivedfinding WHERE image_id = ANY(%(ids)s)
),
suppressed AS MATERIALIZED (
    SELECT has.image_id, {COUNTS_SQL}
    FROM closed effect
    JOIN has ON has.image_id = effect.image_id AND has.package_id = effect.package_id
    JOIN found ON found.package_id = effect.package_id AND found.vulnerability = effect.vulnerability
    GROUP BY has.image_id
),
risk AS (
    SELECT image.id AS image_id, {_LEFT}
    FROM unnest(%(ids)s::bigint[]) AS image(id)
    LEFT JOIN has ON has.image_id = image.id
    LEFT JOIN counted ON counted.package_id = has.package_id
    LEFT JOIN suppressed ON suppressed.image_id = image.id
    GROUP BY image.id
),
reasons AS (
    SELECT image_id, reason, sum(packages) AS packages
    FROM (
        SELECT image_id, packages,
               CASE WHEN row_number() OVER (PARTITION BY image_id ORDER BY packages DESC, reason) < {_REASONS_MAX}
                    THEN reason ELSE 'other reasons' END AS reason
        FROM (
            SELECT has.image_id, unjudged.reason, count(*) AS packages
            FROM has JOIN unjudged USING (package_id)
            -- A waiver takes away no reason: gates read them, and judge waivers by their rules.
            WHERE unjudged.reason <> '{UNREADABLE_SQL}' OR EXISTS (
                SELECT FROM lifecycle_match m JOIN lifecycle_advisory a ON a.id = m.advisory_id
                WHERE m.package_id = has.package_id AND m.valid_to IS NULL AND m.state = 'unknown'
                  AND {not_decided_sql("has.image_id", "m.package_id", "a.vulnerability")}
            )
            GROUP BY has.image_id, unjudged.reason
            UNION ALL
            SELECT id, '{NO_PURL}', dropped_count FROM lifecycle_image WHERE id = ANY(%(ids)s) AND dropped_count > 0
        ) named
    ) ranked
    GROUP BY image_id, reason
),
unknowns AS (
    SELECT image_id, sum(packages) AS packages, jsonb_object_agg(reason, packages) AS reasons
    FROM reasons GROUP BY image_id
)
UPDATE lifecycle_image SET
    critical_count = risk.critical, high_count = risk.high, medium_count = risk.medium, low_count = risk.low,
    unknown_count = risk.unknown, fixable_count = risk.fixable, risk_at = %(now)s,
    unjudged_count = coalesce(unknowns.packages, 0), unjudged_reasons = unknowns.reasons
FROM risk LEFT JOIN unknowns USING (image_id)
WHERE lifecycle_image.id = risk.image_id
"""  # noqa: S608 -- only constants of our modules are inserted


def refresh_risk(image_ids: Collection[int]) -> None:
    """Update the stored counts of these images: open findings, each (package version, vulnerability) once, and packages
    that could not be judged, with the reasons. Which VEX statements and waivers count for the images is found again
    before.

    Images that are counted while another transaction changes matches are counted once more, by a job.
    """
    ordered = sorted(set(image_ids))  # one lock order, against deadlocks
    for start in range(0, len(ordered), _RISK_BATCH):
        batch = ordered[start : start + _RISK_BATCH]
        with transaction.atomic(), connection.cursor() as cursor:
            if not locks.try_share(COUNTING_LOCK):
                count_later(batch)
            cursor.execute("SELECT FROM lifecycle_image WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [batch])
            effects.refresh(batch)
            waiving.refresh(batch)
            cursor.execute(_RISK, {"ids": batch, "severities": list(SEVERITIES), "now": clock.now()})


def count_later(image_ids: Sequence[int]) -> None:
    """Queue a count of these images, once the transaction that changes matches has ended."""
    key = hashlib.sha256(repr(image_ids).encode()).hexdigest()
    jobs.queue(
        RECOUNT,
        subject_id=image_ids[0],
        actor=system_user(),
        payload={"image_ids": list(image_ids)},
        dedupe_key=f"later:{key}",
        not_before=clock.now() + _LATER,
    )
