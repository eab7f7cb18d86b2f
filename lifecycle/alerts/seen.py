"""What changed in the open findings of package versions since the last look."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from django.db import connection
from django.db.backends.utils import CursorWrapper

from lifecycle.advisories.coverage import COVERED_SQL
from lifecycle.core.severities import SEVERITIES, is_rise
from lifecycle.evidence.open_findings import LIVE_SQL, PREFERENCE_SQL


class Difference(StrEnum):
    """How a finding differs from what it was. Of several, the first one is told."""

    NEW = "new"
    EXPLOITED = "exploited"
    WORSENED = "worsened"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of one finding in a package version."""

    what: Difference
    package_id: int
    vulnerability: str
    severity: str  # now; before, when it is gone
    before: str = ""  # the severity before; "" for a new one
    is_exploited: bool = False


# `is_told` is false for what the first load of a feed brought: nothing changed, Gravingdock only learned of it.
_DIFFERENCES: Final = f"""
WITH package AS MATERIALIZED (SELECT DISTINCT id FROM unnest(%(ids)s::bigint[]) AS given(id)),
found AS MATERIALIZED (
    SELECT m.package_id, a.vulnerability, m.severity, m.fixed_version, a.id,
           coalesce(nullif(a.severity_source, ''), a.osv_id) AS rated_by,
           coalesce(m.valid_from > CASE WHEN feed.loaded_folders ? a.directory
                                   THEN (feed.loaded_folders->>a.directory)::timestamptz ELSE feed.loaded_at END,
                    false) AS is_told
    FROM package JOIN lifecycle_match m ON m.package_id = package.id AND {LIVE_SQL}
    JOIN lifecycle_advisory a ON a.id = m.advisory_id
    JOIN lifecycle_feed feed ON feed.id = a.feed_id
), told AS (
    SELECT package_id, vulnerability, bool_or(is_told) AS is_told FROM found GROUP BY package_id, vulnerability
), listed AS MATERIALIZED (
    SELECT vulnerability FROM (SELECT DISTINCT vulnerability FROM found) named
    WHERE EXISTS (
        SELECT FROM lifecycle_advisory other JOIN lifecycle_knownexploited kev ON kev.cve = ANY(other.cves)
        WHERE other.vulnerability = named.vulnerability
    )
), present AS MATERIALIZED (
    SELECT m.package_id, m.vulnerability, m.severity, m.rated_by, told.is_told,
           listed.vulnerability IS NOT NULL AS is_exploited
    FROM (
        SELECT DISTINCT ON (m.package_id, m.vulnerability) m.* FROM found m
        ORDER BY m.package_id, m.vulnerability, {PREFERENCE_SQL.replace("a.id", "m.id")}
    ) m
    JOIN told USING (package_id, vulnerability) LEFT JOIN listed ON listed.vulnerability = m.vulnerability
), before AS MATERIALIZED (
    SELECT seen.* FROM package JOIN lifecycle_seenfinding seen ON seen.package_id = package.id
)
SELECT coalesce(present.package_id, before.package_id), coalesce(present.vulnerability, before.vulnerability),
       present.severity, before.severity, present.is_exploited, before.is_exploited, present.is_told,
       -- Gone, but nobody knows: an advisory's range became unreadable, or no feed covers the package any more.
       present.package_id IS NULL AND (
           EXISTS (SELECT FROM lifecycle_packageversion p WHERE p.id = before.package_id AND NOT {COVERED_SQL})
           OR EXISTS (
               SELECT FROM lifecycle_match m JOIN lifecycle_advisory a ON a.id = m.advisory_id
               WHERE m.package_id = before.package_id AND m.valid_to IS NULL AND m.state = 'unknown'
                 AND a.vulnerability = before.vulnerability
           )
       ),
       -- The severity is only from feeds that were loaded since the last look: it did not rise, it became known.
       CASE WHEN present.severity <> before.severity THEN (
           SELECT bool_and(coalesce(feed.loaded_at > %(looked_at)s::timestamptz, true))
           FROM lifecycle_advisory rating JOIN lifecycle_feed feed ON feed.id = rating.feed_id
           WHERE rating.osv_id = present.rated_by AND rating.own_severity = present.severity
       ) END
FROM present FULL JOIN before
  ON (before.package_id, before.vulnerability) = (present.package_id, present.vulnerability)
WHERE (present.severity, present.is_exploited) IS DISTINCT FROM (before.severity, before.is_exploited)
"""  # noqa: S608 -- only constants of our modules are inserted
_WRITE: Final = """
INSERT INTO lifecycle_seenfinding (package_id, vulnerability, severity, is_exploited)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::boolean[])
ON CONFLICT (package_id, vulnerability)
DO UPDATE SET severity = excluded.severity, is_exploited = excluded.is_exploited
"""
_FORGET: Final = """
DELETE FROM lifecycle_seenfinding seen USING unnest(%s::bigint[], %s::text[]) AS gone(package_id, vulnerability)
WHERE (seen.package_id, seen.vulnerability) = (gone.package_id, gone.vulnerability)
"""
_ALL: Final = """
SELECT DISTINCT package_id FROM lifecycle_match WHERE valid_to IS NULL AND state = 'open' AND package_id > %s
ORDER BY package_id LIMIT %s
"""
# Package versions with a finding that a KEV list names since the last look, or names no longer.
_LISTED: Final = """
WITH listed AS MATERIALIZED (
    SELECT DISTINCT a.vulnerability
    FROM (SELECT vulnerability, unnest(cves) AS cve FROM lifecycle_advisory WHERE cves <> '{}') a
    JOIN lifecycle_knownexploited kev ON kev.cve = a.cve
)
SELECT DISTINCT seen.package_id FROM lifecycle_seenfinding seen LEFT JOIN listed USING (vulnerability)
WHERE seen.is_exploited <> (listed.vulnerability IS NOT NULL)
"""
# A record that learns its CVE id gets another name: the finding is the same.
_RENAMED: Final = """
SELECT DISTINCT pair.old, pair.new FROM unnest(%s::text[], %s::text[]) AS pair(old, new)
JOIN lifecycle_advisory a ON a.vulnerability = pair.new
WHERE a.osv_id = pair.old OR pair.old = ANY(a.aliases) OR pair.old = ANY(a.upstream)
"""
# A name that no record has any more, because its records now have a name that the package version had already.
_MERGED: Final = """
SELECT DISTINCT gone.name, other.vulnerability
FROM unnest(%s::bigint[], %s::text[]) AS gone(package_id, name)
CROSS JOIN LATERAL (
    SELECT a.vulnerability FROM lifecycle_advisory a WHERE a.osv_id = gone.name
    UNION SELECT a.vulnerability FROM lifecycle_advisoryname n JOIN lifecycle_advisory a ON a.id = n.advisory_id
    WHERE n.name = gone.name AND n.kind = 'alias'
) other
JOIN lifecycle_seenfinding seen ON (seen.package_id, seen.vulnerability) = (gone.package_id, other.vulnerability)
WHERE other.vulnerability <> gone.name AND NOT EXISTS (
    SELECT FROM lifecycle_advisory same
    WHERE same.vulnerability = gone.name AND same.withdrawn_at IS NULL AND same.tombstoned_at IS NULL
)
"""
SEED_BATCH: Final = 20_000  # package versions


@dataclass(frozen=True, slots=True)
class Seen:
    """The differences to tell, and {old name: new name} of findings that only got another name."""

    changes: list[Change]
    renamed: dict[str, str]


def look(
    package_ids: Collection[int],
    *,
    silent: Collection[int] = (),
    is_kev_new: bool = False,
    looked_at: datetime | None = None,
) -> Seen:
    """Return how the findings of package versions differ from the last look, and remember them as they are.

    Those of `silent` package versions are only remembered. `is_kev_new`: no list of exploits was there before.
    `looked_at`: when the last look was. A severity from a feed that was loaded since then is no rise.
    """
    if not package_ids:
        return Seen([], {})
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENCES, {"ids": list(package_ids), "severities": list(SEVERITIES), "looked_at": looked_at})
        rows = cursor.fetchall()
        gone = [row for row in rows if row[2] is None]
        there = [row for row in rows if row[2] is not None]
        if gone:
            cursor.execute(_FORGET, [[row[0] for row in gone], [row[1] for row in gone]])
        if there:
            columns = [[row[at] for row in there] for at in (0, 1, 2, 4)]
            cursor.execute(_WRITE, columns)
        renamed = _renamed(cursor, gone, there)
    same = {(row[0], name) for row in gone for name in (row[1], renamed.get(row[1]))}
    quiet = set(silent)
    changes: list[Change] = []
    for package_id, name, now, before, exploited, was_exploited, is_told, is_unknown, is_learned in rows:
        if package_id in quiet:
            continue
        if now is None:
            if not is_unknown and name not in renamed:
                changes.append(Change(Difference.GONE, package_id, name, before, before))
        elif before is None:
            if is_told and (package_id, name) not in same:
                changes.append(Change(Difference.NEW, package_id, name, now, is_exploited=exploited))
        elif exploited and not was_exploited:
            if not is_kev_new:
                changes.append(Change(Difference.EXPLOITED, package_id, name, now, before, is_exploited=True))
        elif is_rise(before, now) and not is_learned:
            changes.append(Change(Difference.WORSENED, package_id, name, now, before, is_exploited=exploited))
    return Seen(changes, renamed)


def _renamed(
    cursor: CursorWrapper, gone: Sequence[tuple[Any, ...]], there: Sequence[tuple[Any, ...]]
) -> dict[str, str]:
    if not gone:
        return {}
    cursor.execute(_MERGED, [[row[0] for row in gone], [row[1] for row in gone]])
    merged = dict(cursor.fetchall())
    names: dict[int, list[str]] = {}
    for package_id, name, _, before, *_ in there:
        if before is None:
            names.setdefault(package_id, []).append(name)
    pairs = sorted({(old[1], new) for old in gone for new in names.get(old[0], ())})
    cursor.execute(_RENAMED, [[old for old, _ in pairs], [new for _, new in pairs]])
    return merged | dict(cursor.fetchall())


def seed(after: int) -> int | None:
    """Remember the open findings of the next package versions after an id, without telling anybody.

    Return the id to continue after; None when all are remembered.
    """
    with connection.cursor() as cursor:
        cursor.execute(_ALL, [after, SEED_BATCH])
        ids = [row[0] for row in cursor.fetchall()]
    look(ids, silent=ids)
    return ids[-1] if ids else None


def listed_packages() -> list[int]:
    """Return the package versions with a finding whose place on the KEV lists changed since the last look."""
    with connection.cursor() as cursor:
        cursor.execute(_LISTED)
        return [row[0] for row in cursor.fetchall()]


def open_pairs(vulnerabilities: Collection[str]) -> list[tuple[str, int]]:
    """Return (vulnerability, package version) of all open findings, and of unknown ones: unknown is never fixed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT vulnerability, package_id FROM lifecycle_seenfinding WHERE vulnerability = ANY(%(names)s)"
            " UNION SELECT a.vulnerability, m.package_id FROM lifecycle_advisory a"
            " JOIN lifecycle_match m ON m.advisory_id = a.id AND m.valid_to IS NULL AND m.state = 'unknown'"
            " WHERE a.vulnerability = ANY(%(names)s)",
            {"names": list(vulnerabilities)},
        )
        return [(name, package_id) for name, package_id in cursor.fetchall()]
