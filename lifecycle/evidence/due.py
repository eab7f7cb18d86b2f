"""When findings are due: of one image, and set-based over all images in use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from django.db import connection

from lifecycle.advisories.exploits import exploit_sql
from lifecycle.advisories.models import Match
from lifecycle.core.severities import COUNTED, NONE, SEVERITIES, UNKNOWN
from lifecycle.evidence.findings import OPEN_STATES, Finding
from lifecycle.evidence.open_findings import LIVE_SQL, PREFERENCE_SQL, not_suppressed_everywhere_sql, not_suppressed_sql
from lifecycle.policies.due_dates import due_dates
from lifecycle.policy.due_dates import DueFact, DueRow, Exposure, due_at
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import platform_ids

# Platform manifests that environments hold, themselves or in an index.
EXPOSED_SQL: Final = """
SELECT held.image_id, bool_or(place.is_production) AS production, bool_or(place.is_internet_facing) AS internet
FROM (
    SELECT image_id, environment_id FROM lifecycle_slot WHERE image_id IS NOT NULL
    UNION ALL
    SELECT entry.child_id, slot.environment_id FROM lifecycle_slot slot
    JOIN lifecycle_indexentry entry ON entry.index_id = slot.image_id
) held
JOIN lifecycle_environment place ON place.id = held.environment_id
WHERE (place.is_production OR place.is_internet_facing) {only}
GROUP BY held.image_id
"""
_FIRST_SEEN: Final = f"""
SELECT m.package_id, p.purl, a.vulnerability, min(greatest(m.valid_from, p.first_seen_at))
FROM (
    SELECT DISTINCT ip.package_id FROM lifecycle_imageinventory ii
    JOIN lifecycle_inventorypackage ip ON ip.inventory_id = ii.inventory_id WHERE ii.image_id = ANY(%s)
) held
JOIN lifecycle_match m ON m.package_id = held.package_id AND {LIVE_SQL}
JOIN lifecycle_advisory a ON a.id = m.advisory_id
JOIN lifecycle_packageversion p ON p.id = m.package_id
GROUP BY m.package_id, p.purl, a.vulnerability
"""  # noqa: S608 -- only constants of our modules are inserted


def exposures_of(image_ids: Collection[int]) -> dict[int, Exposure]:
    """Return the exposure of those of these platform manifests that run somewhere exposed; one query."""
    with connection.cursor() as cursor:
        cursor.execute(EXPOSED_SQL.format(only="AND held.image_id = ANY(%s)"), [list(image_ids)])
        return {pk: Exposure(production, internet) for pk, production, internet in cursor.fetchall()}


def exposure_of(image: Image) -> Exposure:
    """Return the exposure of an image; of an index, that of all its platforms together."""
    found = exposures_of(platform_ids(image)).values()
    return Exposure(any(each.production for each in found), any(each.internet for each in found))


@dataclass(frozen=True, slots=True)
class Due:
    """When a finding was first seen in this package version, and when it is due; None when no row applies to it."""

    first_seen_at: datetime
    due_at: datetime | None

    def is_overdue(self, now: datetime) -> bool:
        return self.due_at is not None and self.due_at < now


def with_due_dates(image: Image, findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings of `image` with `first_seen_at` and `due_at`. Three queries.

    A finding that is not stored yet, or could not be judged, has neither.
    """
    seen = {(purl, name): at for _, purl, name, at in _first_seen(platform_ids(image))}
    rows, exposure = due_dates().rows, exposure_of(image)
    dated = []
    for finding in findings:
        at = seen.get((finding.purl, finding.vulnerability)) if finding.state in OPEN_STATES else None
        if at is None:
            dated.append(finding)
            continue
        exploit = finding.exploit or {}
        listed = exploit.get("exploited_on")
        fact = DueFact(
            finding.severity, at, finding.fixed_version or "", date.fromisoformat(listed) if listed else None,
            exploit.get("epss"), exposure,
        )  # fmt: skip
        dated.append(replace(finding, first_seen_at=at, due_at=due_at(rows, fact)))
    return dated


def due_of_matches(image: Image, matches: Sequence[Match]) -> dict[int, Due]:
    """Return {match id: when it is due} of the open matches of one image, annotated by `with_exploits`."""
    seen = {(package_id, name): at for package_id, _, name, at in _first_seen([image.pk])}
    rows, exposure = due_dates().rows, exposure_of(image)
    found = {}
    for match in matches:
        annotated: Any = match
        at = seen.get((match.package_id, match.advisory.vulnerability))
        if at is not None:
            fact = DueFact(
                match.severity, at, match.fixed_version, annotated.exploited_on, annotated.epss, exposure
            )  # fmt: skip
            found[match.pk] = Due(at, due_at(rows, fact))
    return found


def _first_seen(image_ids: Collection[int]) -> list[tuple[int, str, str, datetime]]:
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_SEEN, [list(image_ids)])
        found: list[tuple[int, str, str, datetime]] = cursor.fetchall()
        return found


# All open findings of package versions with the earliest due date, by where an image runs. NULL: not due.
_DUE: Final = f"""
WITH deadline AS MATERIALIZED (
    SELECT * FROM unnest(%(severity)s::text[], %(exploited)s::boolean[], %(percent)s::int[], %(fix)s::text[],
                         %(exposure)s::text[], %(days)s::int[])
           AS deadline(severity, exploited, percent, fix, exposure, days)
), pair AS MATERIALIZED (
    SELECT DISTINCT ON (m.package_id, a.vulnerability)
           m.package_id, a.vulnerability, m.severity, m.fixed_version, a.cves,
           min(greatest(m.valid_from, p.first_seen_at)) OVER (PARTITION BY m.package_id, a.vulnerability) AS first_seen
    FROM lifecycle_match m
    JOIN lifecycle_advisory a ON a.id = m.advisory_id
    JOIN lifecycle_packageversion p ON p.id = m.package_id
    WHERE {LIVE_SQL}
    ORDER BY m.package_id, a.vulnerability, {PREFERENCE_SQL}
), known AS MATERIALIZED (
    SELECT named.cves, listed.added_on, scored.epss
    FROM (SELECT DISTINCT cves FROM pair WHERE cardinality(cves) > 0) named
    {exploit_sql("named")}
    WHERE listed.added_on IS NOT NULL OR scored.epss IS NOT NULL
), due AS MATERIALIZED (
    SELECT pair.package_id, pair.vulnerability, pair.severity, deadline.exposure,
           min(CASE WHEN deadline.exploited THEN
                    greatest(pair.first_seen, known.added_on::timestamp AT TIME ZONE 'UTC') ELSE pair.first_seen END
               + make_interval(days => deadline.days)) AS at
    FROM pair LEFT JOIN known USING (cves)
    JOIN deadline ON (deadline.severity = '' OR deadline.severity = pair.severity)
     AND (NOT deadline.exploited OR known.added_on IS NOT NULL)
     AND (deadline.percent IS NULL OR coalesce(known.epss, 0) * 100 >= deadline.percent)
     AND (deadline.fix = '' OR (deadline.fix = 'yes') = (pair.fixed_version <> ''))
    GROUP BY pair.package_id, pair.vulnerability, pair.severity, deadline.exposure
)
"""  # noqa: S608 -- only constants of our modules are inserted
_OVERDUE: Final = f"""
{_DUE}
SELECT package_id, vulnerability, severity, exposure, at FROM due WHERE at < %(now)s
  AND {not_suppressed_everywhere_sql("due.package_id", "due.vulnerability")}
ORDER BY vulnerability, package_id, exposure
"""  # noqa: S608 -- only constants of our modules are inserted
# Images in use: a tag points to them, or an environment holds them.
_COUNT: Final = f"""
{_DUE}, exposed AS MATERIALIZED (
    {EXPOSED_SQL.format(only="")}
), top AS MATERIALIZED (
    SELECT image_id AS id FROM lifecycle_tag WHERE image_id IS NOT NULL
    UNION SELECT image_id FROM lifecycle_slot WHERE image_id IS NOT NULL
), used AS MATERIALIZED (
    SELECT below.id, coalesce(exposed.production, false) AS production, coalesce(exposed.internet, false) AS internet
    FROM (
        SELECT id FROM top
        UNION SELECT entry.child_id FROM top JOIN lifecycle_indexentry entry ON entry.index_id = top.id
    ) below LEFT JOIN exposed ON exposed.image_id = below.id
), late AS MATERIALIZED (
    SELECT package_id, vulnerability, dense_rank() OVER (ORDER BY vulnerability) AS name, exposure,
           array_position(%(severities)s::varchar[], severity) AS rank
    FROM due WHERE at < %(now)s
), held AS MATERIALIZED (
    SELECT DISTINCT ip.inventory_id, late.package_id, late.vulnerability, late.name, late.exposure, late.rank
    FROM late JOIN lifecycle_inventorypackage ip ON ip.package_id = late.package_id
), counted AS (
    SELECT used.id, held.name, min(held.rank) AS rank
    FROM used JOIN lifecycle_imageinventory ii ON ii.image_id = used.id
    JOIN held ON held.inventory_id = ii.inventory_id
     AND (held.exposure = '' OR (held.exposure = 'production' AND used.production)
          OR (held.exposure = 'internet' AND used.internet))
    WHERE {not_suppressed_sql("used.id", "held.package_id", "held.vulnerability")}
    GROUP BY used.id, held.name
)
SELECT rank, count(*), count(DISTINCT id), (SELECT count(DISTINCT id) FROM counted) FROM counted GROUP BY rank
"""  # noqa: S608 -- only constants of our modules are inserted


def _parameters(rows: Sequence[DueRow], now: datetime) -> dict[str, Any]:
    return {
        "severity": [row.severity for row in rows],
        "exploited": [row.exploited for row in rows],
        "percent": [row.min_epss_percent for row in rows],
        "fix": [row.fix for row in rows],
        "exposure": [row.exposure for row in rows],
        "days": [row.days for row in rows],
        "severities": list(SEVERITIES),
        "now": now,
    }


@dataclass(frozen=True, slots=True)
class OverduePair:
    """A finding of a package version that is overdue: everywhere ("" exposure), or only where it is exposed so."""

    package_id: int
    vulnerability: str
    severity: str
    exposure: str
    due_at: datetime


def overdue_pairs(rows: Sequence[DueRow], now: datetime) -> list[OverduePair]:
    """Return what is overdue by these rows, with one query over all open findings."""
    if not rows:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_OVERDUE, _parameters(rows, now))
        return [OverduePair(*row) for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class OverdueCount:
    """How many findings are overdue: a vulnerability in an image in use counts once."""

    findings: int
    images: int
    severities: Mapping[str, int]


def count_overdue(rows: Sequence[DueRow], now: datetime) -> OverdueCount:
    """Return how many findings of all images in use would be overdue by these rows. One query."""
    severities = dict.fromkeys(COUNTED, 0)
    if not rows:
        return OverdueCount(0, 0, severities)
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, _parameters(rows, now))
        found = cursor.fetchall()
    for rank, count, _, _ in found:
        name = SEVERITIES[rank - 1]
        severities[UNKNOWN if name == NONE else name] += count
    return OverdueCount(sum(severities.values()), found[0][3] if found else 0, severities)
