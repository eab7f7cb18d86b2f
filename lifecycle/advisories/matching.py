"""Matching of advisories to package versions: SQL joins over version keys, per package version, never per image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction

from lifecycle import versions
from lifecycle.advisories.models import Match
from lifecycle.core import locks
from lifecycle.versions.coordinates import Coordinates
from lifecycle.versions.ecosystems import DISTRIBUTION_SCHEMES, PRO_PREFIX

BATCH: Final = 2000  # ids per statement; limits the memory of one statement
_LOCK: Final = 0x61647669  # one matcher at a time: concurrent ones could miss each other's uncommitted rows

# One row for each advisory that affects a package. `package` is any relation with the columns id, ecosystem, release,
# match_name, match_version, version_key and scheme. An interval that can be judged wins over one that cannot, then one
# for the package's release: it includes those for all releases (records.py). A distribution's package of unknown
# release has no ecosystem, and so no row here. A language's package whose purl names no repository may be from any of
# them: an advisory for one repository only then matches, and says so.
_PAIRS: Final = """
SELECT DISTINCT ON (package.id, ai.advisory_id)
       package.id AS package_id, ai.advisory_id, ai.id AS interval_id,
       bool_and(package.release = '' AND ai.release <> '')
           OVER (PARTITION BY package.id, ai.advisory_id, ai.is_unevaluated) AS is_assumed
FROM {package} package
JOIN lifecycle_affectedinterval ai
  ON ai.ecosystem = package.ecosystem AND ai.name = package.match_name
 AND (ai.release = '' OR ai.release = package.release OR (%(pro)s AND ai.release = %(pro_prefix)s || package.release)
      OR (package.release = '' AND ai.scheme <> ALL(%(distributions)s)))
JOIN lifecycle_advisory a
  ON a.id = ai.advisory_id AND a.withdrawn_at IS NULL AND a.tombstoned_at IS NULL
WHERE package.ecosystem <> '' AND package.match_version <> '' AND {scope}
  AND CASE
      WHEN ai.exact_version <> '' THEN ai.exact_version = package.match_version
      WHEN ai.scheme = 'maven' THEN ai.id = ANY(%(maven)s) AND (package.id, ai.id) IN (
           SELECT * FROM unnest(%(maven_packages)s::bigint[], %(maven)s::bigint[]))
      ELSE package.version_key IS NOT NULL
       AND (ai.low IS NULL OR ai.low < package.version_key OR (ai.low_inclusive AND ai.low = package.version_key))
       AND (ai.high IS NULL OR ai.high > package.version_key OR (ai.high_inclusive AND ai.high = package.version_key))
      END
ORDER BY package.id, ai.advisory_id, ai.is_unevaluated, ai.release = '', ai.fixed_version = '',
         ai.high DESC NULLS LAST, ai.id
"""
# The join does not need `ecosystem <> ''`, but the index by coordinates has this condition and is unused without it.
_MAVEN_CANDIDATES: Final = """
SELECT package.id, ai.id, package.match_version, ai.low_text, ai.low_inclusive, ai.high_text, ai.high_inclusive
FROM {package} package
JOIN lifecycle_affectedinterval ai ON ai.ecosystem = package.ecosystem AND ai.name = package.match_name
JOIN lifecycle_advisory a ON a.id = ai.advisory_id
WHERE package.ecosystem <> '' AND ai.scheme = 'maven' AND ai.exact_version = ''
  AND a.withdrawn_at IS NULL AND a.tombstoned_at IS NULL AND {scope}
"""
_STATE: Final = "CASE WHEN ai.is_unevaluated THEN 'unknown' ELSE 'open' END"
_REASON: Final = """
left(concat_ws('; ', nullif(ai.problem, ''), CASE WHEN pairs.is_assumed THEN
     'assumed to be from ' || ai.release || ', because the package URL names no repository' END), 300)
"""
_WHY: Final = """
CASE WHEN ai.exact_version <> '' OR (ai.low_text <> '' AND ai.low_text = ai.high_text AND ai.high_inclusive)
     THEN 'exactly ' || ai.high_text
     ELSE concat_ws(' and ',
          CASE WHEN ai.low_text <> '' THEN CASE WHEN ai.low_inclusive THEN '>= ' ELSE '> ' END || ai.low_text END,
          CASE WHEN ai.high_text <> '' THEN CASE WHEN ai.high_inclusive THEN '<= ' ELSE '< ' END || ai.high_text END,
          CASE WHEN ai.low_text = '' AND ai.high_text = '' THEN 'every version' END)
END
"""


@dataclass(frozen=True, slots=True)
class PackageVerdict:
    """An advisory that affects the package at index `position` of the input, or may affect it (`state`, `reason`)."""

    position: int
    advisory_id: int
    osv_id: str
    fixed_version: str
    severity: str
    state: str = Match.State.OPEN.value
    reason: str = ""
    severity_source: str = ""  # the record that the severity is from; "" for the advisory itself
    vulnerability: str = ""  # the name that all records of it share
    cves: Sequence[str] = ()


def match_packages(package_ids: Collection[int]) -> set[int]:
    """Open and close the matches of these package versions; return the ids of those that changed. Safe to run twice.

    A package version that was never matched before counts as changed, because it was unknown until now.
    """
    changed: set[int] = set()
    for batch in _batches(package_ids):
        with transaction.atomic():
            changed |= _apply("package.id = ANY(%(ids)s)", "m.package_id = ANY(%(ids)s)", batch)
            changed |= _note_matched(batch)
    return changed


def _note_matched(ids: list[int]) -> set[int]:
    """Mark package versions as matched; return the ids of those that were not."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE lifecycle_packageversion SET is_unmatched = false WHERE id = ANY(%s) AND is_unmatched RETURNING id",
            [ids],
        )
        return {row[0] for row in cursor.fetchall()}


def begin() -> datetime:
    """Wait until no other transaction changes matches, and return the time: later matches are of this transaction."""
    locks.wait_for(_LOCK)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def match_advisories(advisory_ids: Collection[int]) -> set[int]:
    """Open and close the matches of these advisories; return the ids of package versions whose matches changed."""
    changed: set[int] = set()
    for batch in _batches(advisory_ids):
        changed |= _apply("ai.advisory_id = ANY(%(ids)s)", "m.advisory_id = ANY(%(ids)s)", batch)
    return changed


def _batches(ids: Collection[int]) -> Iterator[list[int]]:
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


@transaction.atomic
def _apply(scope: str, match_scope: str, ids: list[int]) -> set[int]:
    locks.wait_for(_LOCK)
    with connection.cursor() as cursor:
        parameters = _parameters(cursor, "lifecycle_packageversion", scope, {"ids": ids})
        pairs = _PAIRS.format(package="lifecycle_packageversion", scope=scope)
        cursor.execute(
            f"""
            WITH pairs AS MATERIALIZED ({pairs}),
            wanted AS MATERIALIZED (
                SELECT pairs.package_id, pairs.advisory_id, ai.fixed_version, a.severity, {_STATE} AS state,
                       {_REASON} AS reason,
                       left(package.match_name || ' ' || package.match_version || ': ' || {_WHY}, 1100) AS interval_text
                FROM pairs
                JOIN lifecycle_affectedinterval ai ON ai.id = pairs.interval_id
                JOIN lifecycle_advisory a ON a.id = pairs.advisory_id
                JOIN lifecycle_packageversion package ON package.id = pairs.package_id
            ),
            closed AS (
                UPDATE lifecycle_match m SET valid_to = clock_timestamp()
                WHERE m.valid_to IS NULL AND {match_scope}
                  AND NOT EXISTS (SELECT FROM wanted w
                                  WHERE (w.package_id, w.advisory_id) = (m.package_id, m.advisory_id))
                RETURNING m.package_id
            ),
            kept AS (
                UPDATE lifecycle_match m
                SET fixed_version = w.fixed_version, severity = w.severity, interval_text = w.interval_text,
                    state = w.state, reason = w.reason
                FROM wanted w
                WHERE m.valid_to IS NULL AND (w.package_id, w.advisory_id) = (m.package_id, m.advisory_id)
                  AND (m.fixed_version, m.severity, m.interval_text, m.state, m.reason)
                      IS DISTINCT FROM (w.fixed_version, w.severity, w.interval_text, w.state, w.reason)
                RETURNING m.package_id
            ),
            opened AS (
                INSERT INTO lifecycle_match
                       (package_id, advisory_id, fixed_version, severity, interval_text, state, reason,
                        valid_from, valid_to)
                SELECT w.package_id, w.advisory_id, w.fixed_version, w.severity, w.interval_text, w.state, w.reason,
                       clock_timestamp(), NULL
                FROM wanted w
                WHERE NOT EXISTS (SELECT FROM lifecycle_match m WHERE m.valid_to IS NULL
                                  AND (w.package_id, w.advisory_id) = (m.package_id, m.advisory_id))
                RETURNING package_id
            )
            SELECT package_id FROM closed UNION SELECT package_id FROM kept UNION SELECT package_id FROM opened
            """,  # noqa: S608 -- only constants of this module are inserted
            parameters,
        )
        return {row[0] for row in cursor.fetchall()}


def _parameters(cursor: Any, package: str, scope: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of _PAIRS. Maven candidates are compared here, because Maven versions have no keys."""
    cursor.execute(_MAVEN_CANDIDATES.format(package=package, scope=scope), parameters)
    affected = [
        (package_id, interval_id)
        for package_id, interval_id, version, low, low_in, high, high_in in cursor.fetchall()
        if _is_in_maven_interval(version, low, low_in, high, high_in)
    ]
    return {
        **parameters,
        "pro": settings.UBUNTU_PRO,
        "pro_prefix": PRO_PREFIX,
        "distributions": sorted(DISTRIBUTION_SCHEMES),
        "maven": [interval_id for _, interval_id in affected],
        "maven_packages": [package_id for package_id, _ in affected],
    }


def _is_in_maven_interval(version: str, low: str, low_inclusive: bool, high: str, high_inclusive: bool) -> bool:
    try:
        if low and (order := versions.compare(versions.MAVEN, low, version)) >= (1 if low_inclusive else 0):
            return False
        if not high:
            return True
        order = versions.compare(versions.MAVEN, version, high)
    except ValueError:
        return False
    return order < 0 or (order == 0 and high_inclusive)


def verdicts(packages: Sequence[Coordinates]) -> list[PackageVerdict]:
    """Return the advisories that affect `packages`, without storing anything.

    An invalid version matches only an equal `versions` entry, as text.
    """
    out: list[PackageVerdict] = []
    for start in range(0, len(packages), BATCH):
        out += _verdicts(packages[start : start + BATCH], start)
    return out


_INPUT: Final = """(SELECT * FROM unnest(
    %(positions)s::bigint[], %(ecosystems)s::text[], %(releases)s::text[], %(names)s::text[], %(versions)s::text[],
    %(keys)s::bytea[], %(schemes)s::text[]
) AS input(id, ecosystem, release, match_name, match_version, version_key, scheme))"""


def _verdicts(packages: Sequence[Coordinates], offset: int) -> Iterable[PackageVerdict]:
    columns = {
        "positions": [offset + number for number in range(len(packages))],
        "ecosystems": [item.ecosystem for item in packages],
        "releases": [item.release for item in packages],
        "names": [item.name for item in packages],
        "versions": [item.version for item in packages],
        "keys": [item.key for item in packages],
        "schemes": [item.scheme for item in packages],
    }
    with connection.cursor() as cursor:
        parameters = _parameters(cursor, _INPUT, "true", columns)
        cursor.execute(
            f"""
            SELECT pairs.package_id, a.id, a.osv_id, ai.fixed_version, a.severity, {_STATE}, {_REASON},
                   a.severity_source, a.vulnerability, a.cves
            FROM ({_PAIRS.format(package=_INPUT, scope="true")}) pairs
            JOIN lifecycle_affectedinterval ai ON ai.id = pairs.interval_id
            JOIN lifecycle_advisory a ON a.id = pairs.advisory_id
            """,  # noqa: S608 -- only constants of this module are inserted
            parameters,
        )
        return [PackageVerdict(*row) for row in cursor.fetchall()]
