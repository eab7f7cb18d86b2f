"""Records of one vulnerability under several names: they share a name and what any of them knows of its severity."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from lifecycle.core import locks
from lifecycle.core.severities import SEVERITIES, UNKNOWN

_LOCK: Final = 0x67726F75  # one writer at a time: two feeds can have records of the same vulnerability
_ROUNDS_MAX: Final = 50  # a longer chain of aliases is an error in a feed
_ALIASES_MAX: Final = 32  # a record with more would merge everything that it names (osv.dev has the same limit)
_CVE: Final = re.compile(r"CVE-(\d{4})-(\d{1,19})")
# The feed by a subquery, so that the indexes on names stay the way in.
_COLUMNS: Final = (
    "a.id, a.osv_id, a.aliases, a.upstream, a.related, a.own_severity, "
    "(SELECT f.kind = 'cve' FROM lifecycle_feed f WHERE f.id = a.feed_id)"
)
_LIVE: Final = "a.withdrawn_at IS NULL AND a.tombstoned_at IS NULL"
# The records with these ids, those that have one of them as an alias, and those of one upstream record.
_STEP: Final = f"""
SELECT {_COLUMNS} FROM lifecycle_advisory a WHERE a.osv_id = ANY(%(ids)s) AND {_LIVE}
UNION
SELECT {_COLUMNS} FROM lifecycle_advisoryname n JOIN lifecycle_advisory a ON a.id = n.advisory_id
WHERE n.name = ANY(%(ids)s) AND n.kind = 'alias' AND cardinality(a.aliases) <= {_ALIASES_MAX} AND {_LIVE}
UNION
SELECT {_COLUMNS} FROM lifecycle_advisoryname n JOIN lifecycle_advisory a ON a.id = n.advisory_id
WHERE n.name = ANY(%(ids)s) AND n.kind = 'upstream' AND cardinality(a.upstream) = 1 AND {_LIVE}
"""  # noqa: S608 -- only constants of this module are inserted
# Records without a severity of their own that can take it from one of these ids. With one upstream record, they are in
# its group.
_DEPENDENTS: Final = f"""
SELECT DISTINCT a.osv_id FROM lifecycle_advisoryname n JOIN lifecycle_advisory a ON a.id = n.advisory_id
WHERE n.name = ANY(%(ids)s) AND (n.kind = 'related' OR (n.kind = 'upstream' AND cardinality(a.upstream) > 1))
  AND a.own_severity = 'unknown' AND {_LIVE}
"""  # noqa: S608 -- likewise
_UPDATE: Final = """
UPDATE lifecycle_advisory a
SET vulnerability = new.vulnerability, severity = new.severity, severity_source = new.source, is_grouped = true,
    cves = string_to_array(new.cves, ' ')
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])
     AS new(id, vulnerability, severity, source, cves)
WHERE a.id = new.id AND (NOT a.is_grouped OR (a.vulnerability, a.severity, a.severity_source, a.cves)
                         IS DISTINCT FROM (new.vulnerability, new.severity, new.source,
                                           string_to_array(new.cves, ' ')::varchar[]))
RETURNING a.id
"""


@dataclass(frozen=True, slots=True)
class _Record:
    pk: int
    osv_id: str
    aliases: tuple[str, ...]
    upstream: tuple[str, ...]
    related: tuple[str, ...]
    own_severity: str
    is_cve_record: bool  # from the CVE program or NVD: counts where no database that knows the software rates it

    @property
    def same_as(self) -> tuple[str, ...]:
        """Other names of this vulnerability. A record with several upstream records (DSA, USN) is about all of them
        together, so it is none of them. The same holds for more aliases than one vulnerability can have."""
        aliases = self.aliases if len(self.aliases) <= _ALIASES_MAX else ()
        return aliases + (self.upstream if len(self.upstream) == 1 else ())

    @property
    def names(self) -> tuple[str, ...]:
        return (self.osv_id, *self.same_as)


@transaction.atomic
def regroup(osv_ids: Iterable[str]) -> set[int]:
    """Give these records, and all that name them, the name of their vulnerability and its known severity.

    The name is the CVE id if there is one. A record without a severity of its own takes the worst one of its aliases in
    any feed, else of its upstream and related records; `severity_source` names the record. `cves` are the CVE ids that
    the group and upstream name, else those of all aliases, else the related ones (AlmaLinux names its CVEs only there).
    Returns the ids of changed advisories.
    """
    locks.wait_for(_LOCK)
    seeds = set(osv_ids)
    if not seeds:
        return set()
    with connection.cursor() as cursor:
        records = _closure(cursor, seeds)
        names = seeds.union(*(record.names for record in records.values()))
        cursor.execute(_DEPENDENTS, {"ids": sorted(names)})
        dependents = {row[0] for row in cursor.fetchall()} - names
        if dependents:
            records |= _closure(cursor, dependents)
        groups = _groups(records.values())
        elsewhere = _severities_elsewhere(cursor, groups)
        rows = []
        for group in groups:
            name, known, cves = _name_of(group), _worst(group), _cves(n for r in group for n in r.names)
            fallback = _cves(n for r in group for n in r.aliases) or _cves(n for r in group for n in r.related)
            for record in group:
                severity, source = record.own_severity, ""
                if severity == UNKNOWN and (best := known or elsewhere.get(record.pk)):
                    severity, source = SEVERITIES[best[0]], best[1]
                own = cves | _cves(record.upstream) or fallback
                rows.append((record.pk, name, severity, source, " ".join(sorted(own))))
        cursor.execute(_UPDATE, [list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], []])
        return {row[0] for row in cursor.fetchall()}


def _closure(cursor: CursorWrapper, ids: Collection[str]) -> dict[int, _Record]:
    """Return all live records that are connected with these ids by aliases or by a single upstream record."""
    records: dict[int, _Record] = {}
    frontier, seen = set(ids), set(ids)
    for _ in range(_ROUNDS_MAX):
        if not frontier:
            break
        cursor.execute(_STEP, {"ids": sorted(frontier)})
        frontier = set()
        for pk, osv_id, aliases, upstream, related, severity, is_cve_record in cursor.fetchall():
            record = _Record(pk, osv_id, tuple(aliases), tuple(upstream), tuple(related), severity, is_cve_record)
            records[pk] = record
            frontier.update({*record.names} - seen)
        seen |= frontier
    return records


def _groups(records: Iterable[_Record]) -> list[list[_Record]]:
    """Return the connected records together."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        root.setdefault(name, name)
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    members = list(records)
    for record in members:
        for name in record.same_as:
            root[find(name)] = find(record.osv_id)
    groups: dict[str, list[_Record]] = defaultdict(list)
    for record in members:
        groups[find(record.osv_id)].append(record)
    return list(groups.values())


def _name_of(group: Collection[_Record]) -> str:
    """Return the lowest CVE id among all names, else the lowest GitHub id, else the lowest id of a record."""
    names = {name for record in group for name in record.names}
    cves = [(int(match[1]), int(match[2]), name) for name in names if (match := _CVE.fullmatch(name))]
    if cves:
        return min(cves)[2]
    github = [name for name in names if name.startswith("GHSA-")]
    return min(github or [record.osv_id for record in group])


def _cves(names: Iterable[str]) -> set[str]:
    return {name for name in names if _CVE.fullmatch(name)}


def _worst(group: Iterable[_Record]) -> tuple[int, str] | None:
    """Return the worst (rank, id) of the severities that the records state themselves; None when none does.

    Records of the CVE program and of NVD count only where no other record states one.
    """
    known = [r for r in group if r.own_severity != UNKNOWN]
    known = [r for r in known if not r.is_cve_record] or known
    return min(((SEVERITIES.index(r.own_severity), r.osv_id) for r in known), default=None)


def _severities_elsewhere(cursor: CursorWrapper, groups: Iterable[Collection[_Record]]) -> dict[int, tuple[int, str]]:
    """Return, for records of groups without a severity, the worst (rank, id) of their upstream, else related records.

    A bundle (DSA, USN) names CVE ids. What counts is each record of that vulnerability, under any of its names.
    """
    unknown: list[_Record] = []
    wanted: set[str] = set()
    for group in groups:
        if _worst(group) is None:
            unknown += group
            named = {name for record in group for name in (*record.upstream, *record.related, *record.aliases)}
            wanted |= named.difference(*(record.names for record in group))  # the group itself knows nothing
    if not wanted:
        return {}
    known: dict[str, tuple[int, str]] = {}
    for group in _groups(_closure(cursor, wanted).values()):
        if (best := _worst(group)) is not None:
            known |= dict.fromkeys((name for record in group for name in record.names), best)
    found: dict[int, tuple[int, str]] = {}
    for record in unknown:
        for names in (record.aliases, record.upstream, record.related):
            ranked = [known[name] for name in names if name in known]
            if ranked and record.pk not in found:
                found[record.pk] = min(ranked)
    return found
