"""Remedies that a reader can see, as groups: the same remedy of many repositories is one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.db.models import QuerySet

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.covers import visible_sql
from lifecycle.authority.queries import environments_visible_to, repositories_visible_to, teams_of
from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM, RANKS, UNKNOWN
from lifecycle.environments.models import Environment, Slot
from lifecycle.registry.models import Image, Repository
from lifecycle.remedies.models import FixComment, Remedy

GROUPS_MAX: Final = 100
MINE: Final = "mine"
ASSIGNED: Final = "assigned"
UNASSIGNED: Final = "unassigned"
SHOWN: Final = ""  # only what nobody put off
ONLY: Final = "only"  # only what is put off now
ALL: Final = "all"
COUNTED: Final = (CRITICAL, HIGH, MEDIUM, LOW, UNKNOWN)
_ROWS_MAX: Final = 500
FORMULA: Final = (
    "Known exploited first. Then what can be fixed now, with the highest EPSS score (in tenths). Then what runs in "
    "production, and the number of critical, high and all findings."
)


@dataclass(frozen=True, slots=True)
class Work:
    """What one team does about a remedy. Empty names: nobody, or nobody put it off."""

    id: int
    team: str
    person: str
    to_team: str
    is_snoozed: bool  # now; the rest of the snooze is stored until it is changed
    snoozed_until: datetime | None
    until_fix: bool
    snoozed_by: str
    reason: str


@dataclass(slots=True)
class Group:
    """One remedy with what it closes, over the repositories that the reader can see.

    `base` is None where there is none, or where the reader cannot see it: then `has_hidden_base`.
    """

    key: str
    kind: str
    base: Repository | None
    has_hidden_base: bool
    base_tag: str
    old_base: Image | None
    new_base: Image | None
    package_type: str
    package_name: str
    fixed_version: str
    images: int
    findings: int
    severities: dict[str, int]
    exploited: int  # of the findings
    epss: float | None  # the highest score
    due_at: datetime | None  # the earliest due date; None: no finding is ever due
    teams: tuple[str, ...]
    environments: list[tuple[Environment, int]] = field(default_factory=list)  # (where they run, images there)
    work: list[Work] = field(default_factory=list)  # what the teams do about it


@dataclass(frozen=True, slots=True)
class Choice:
    """What a list of remedies is limited to; "" and None do not limit."""

    team: str = ""
    environment: Environment | None = None
    kind: str = ""
    exploited: bool = False  # closes something that is known to be exploited
    overdue: bool = False  # closes something that is past its due date
    severity: str = ""  # closes at least one finding that is as bad as this
    key: str = ""
    who: str = ""  # MINE: assigned to the reader or a team of theirs; ASSIGNED; UNASSIGNED
    snoozed: str = SHOWN


# Whether the team of the remedy's repository put it off: until a time, or while there is no fix. What becomes known to
# be exploited later is not put off.
_SNOOZED: Final = """
    (work.id IS NOT NULL AND (work.until_fix OR work.snoozed_until IS NOT NULL)
     AND (work.snoozed_until IS NULL OR work.snoozed_until > now())
     AND (NOT work.until_fix OR remedy.kind IN ('none', 'wait'))
     AND (work.was_exploited OR remedy.exploited = 0))
"""
_WORK_JOIN: Final = (
    "LEFT JOIN lifecycle_teamfix work ON work.team_id = repository.team_id AND work.subject = remedy.subject"
)
_GROUPS: Final = """
WITH mine AS (
    SELECT remedy.*, team.slug AS team,
           EXISTS (
               SELECT FROM lifecycle_slot slot JOIN lifecycle_environment place ON place.id = slot.environment_id
               WHERE slot.repository_id = remedy.repository_id AND slot.image_id = remedy.image_id
                     AND place.is_production
           ) AS in_production
    FROM lifecycle_remedy remedy
    JOIN lifecycle_repository repository ON repository.id = remedy.repository_id
    JOIN accounts_team team ON team.id = repository.team_id
    {work}
    WHERE {where}
), grouped AS (
    SELECT key, min(kind) AS kind, min(base_id) AS base_id, min(base_tag) AS base_tag, min(old_base_id) AS old_base_id,
           min(new_base_id) AS new_base_id, min(package_type) AS package_type, min(package_name) AS package_name,
           min(fixed_version) AS fixed_version, count(*) AS images, sum(critical) AS critical, sum(high) AS high,
           sum(medium) AS medium, sum(low) AS low, sum(unknown) AS unknown,
           sum(exploited) AS exploited, max(epss) AS epss, min(due_at) AS due_at,
           sum(critical + high + medium + low + unknown) AS findings, array_agg(DISTINCT team) AS teams,
           count(*) FILTER (WHERE in_production) AS in_production
    FROM mine GROUP BY key
)
SELECT *, count(*) OVER () AS total, sum(findings) OVER () AS all_findings
FROM grouped WHERE {having}
ORDER BY exploited = 0, kind NOT IN ('rebuild', 'upgrade', 'promote'), floor(coalesce(epss, 0) * 10) DESC,
         in_production = 0, critical DESC, high DESC, findings DESC, key
LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Groups:
    """The first groups in order, the number of all groups, and of the findings in all of them."""

    groups: list[Group]
    total: int
    findings: int


def groups_for(actor: User, choice: Choice, *, limit: int = GROUPS_MAX) -> Groups:
    """Return the remedies of repositories that `actor` can see, most useful first: see FORMULA. Six queries."""
    where, values = visible_sql(actor, Verb.IMAGE_VIEW, "repository")
    if choice.team:
        where, values = f"{where} AND team.slug = %s", [*values, choice.team]
    if choice.key:
        where, values = f"{where} AND remedy.key = %s", [*values, choice.key]
    if choice.kind:
        where, values = f"{where} AND remedy.kind = %s", [*values, choice.kind]
    if choice.environment is not None:
        where += (
            " AND EXISTS (SELECT FROM lifecycle_slot slot WHERE slot.repository_id = remedy.repository_id"
            " AND slot.image_id = remedy.image_id AND slot.environment_id = %s)"
        )
        values = [*values, choice.environment.pk]
    condition, given = _work_condition(actor, choice)
    where, values = f"{where}{condition}", [*values, *given]
    bad = [name for name in COUNTED[:-1] if choice.severity and RANKS[name] <= RANKS[choice.severity]]
    having = " + ".join(bad) + " > 0" if bad else "TRUE"
    having += " AND exploited > 0" if choice.exploited else ""
    having += " AND due_at < now()" if choice.overdue else ""
    with connection.cursor() as cursor:
        cursor.execute(_GROUPS.format(where=where, having=having, work=_WORK_JOIN), [*values, limit])
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return Groups(
        _groups(actor, rows),
        int(rows[0]["total"]) if rows else 0,
        int(rows[0]["all_findings"]) if rows else 0,
    )


def _work_condition(actor: User, choice: Choice) -> tuple[str, list[Any]]:
    """Return the condition for `who` and `snoozed` of a choice, with its values."""
    condition, values = "", []
    if choice.who == MINE:
        condition += " AND (work.person_id = %s OR work.to_team_id = ANY(%s::bigint[]))"
        values += [actor.pk, list(teams_of(actor).values_list("pk", flat=True))]
    elif choice.who == ASSIGNED:
        condition += " AND (work.person_id IS NOT NULL OR work.to_team_id IS NOT NULL)"
    elif choice.who == UNASSIGNED:
        condition += " AND work.person_id IS NULL AND work.to_team_id IS NULL"
    if choice.snoozed != ALL:
        condition += f" AND {'' if choice.snoozed == ONLY else 'NOT '}{_SNOOZED}"
    return condition, values


def _groups(actor: User, rows: Sequence[Mapping[str, Any]]) -> list[Group]:
    visible = repositories_visible_to(actor).select_related("team")
    bases = visible.in_bulk({row["base_id"] for row in rows} - {None})
    wanted = {row[name] for row in rows for name in ("old_base_id", "new_base_id") if row["base_id"] in bases}
    images = Image.objects.defer("manifest", "config").in_bulk(wanted - {None})
    keys = [row["key"] for row in rows]
    places, work = _places(actor, keys), _work(actor, keys)
    return [
        Group(
            key=row["key"],
            kind=row["kind"],
            base=bases.get(row["base_id"]),
            has_hidden_base=row["base_id"] is not None and row["base_id"] not in bases,
            base_tag=row["base_tag"] if row["base_id"] in bases else "",
            old_base=images.get(row["old_base_id"]),
            new_base=images.get(row["new_base_id"]),
            package_type=row["package_type"],
            package_name=row["package_name"],
            fixed_version=row["fixed_version"],
            images=row["images"],
            findings=int(row["findings"]),
            severities={name: int(row[name]) for name in COUNTED},
            exploited=int(row["exploited"]),
            epss=row["epss"],
            due_at=row["due_at"],
            teams=tuple(row["teams"]),
            environments=places.get(row["key"], []),
            work=work.get(row["key"], []),
        )
        for row in rows
    ]


_PLACES: Final = """
SELECT remedy.key, slot.environment_id, count(*) FROM lifecycle_remedy remedy
JOIN lifecycle_repository repository ON repository.id = remedy.repository_id
JOIN lifecycle_slot slot ON slot.repository_id = remedy.repository_id AND slot.image_id = remedy.image_id
WHERE remedy.key = ANY(%s) AND {where} GROUP BY remedy.key, slot.environment_id
"""
_WORK: Final = f"""
SELECT remedy.key, work.id, team.slug, coalesce(person.username, ''), coalesce(to_team.slug, ''),
       bool_and({_SNOOZED}), work.snoozed_until, work.until_fix, coalesce(by.username, ''), work.reason
FROM lifecycle_remedy remedy
JOIN lifecycle_repository repository ON repository.id = remedy.repository_id
JOIN lifecycle_teamfix work ON work.team_id = repository.team_id AND work.subject = remedy.subject
JOIN accounts_team team ON team.id = work.team_id
LEFT JOIN accounts_team to_team ON to_team.id = work.to_team_id
LEFT JOIN accounts_user person ON person.id = work.person_id
LEFT JOIN accounts_user by ON by.id = work.snoozed_by_id
WHERE remedy.key = ANY(%s) AND {{where}}
GROUP BY remedy.key, work.id, team.slug, person.username, to_team.slug, by.username ORDER BY team.slug
"""  # noqa: S608 -- only constants of this module are inserted


def _work(actor: User, keys: Sequence[str]) -> dict[str, list[Work]]:
    """Return {key: what each team does about it}, of teams with a repository that the reader can see."""
    if not keys:
        return {}
    condition, values = visible_sql(actor, Verb.IMAGE_VIEW, "repository")
    with connection.cursor() as cursor:
        cursor.execute(_WORK.format(where=condition), [list(keys), *values])
        found = cursor.fetchall()
    work: dict[str, list[Work]] = defaultdict(list)
    for key, *row in found:
        work[key].append(Work(*row))
    return dict(work)


def _places(actor: User, keys: Sequence[str]) -> dict[str, list[tuple[Environment, int]]]:
    """Return {key: where its repositories run, production first}, of environments that the reader can see."""
    if not keys:
        return {}
    condition, values = visible_sql(actor, Verb.IMAGE_VIEW, "repository")
    with connection.cursor() as cursor:
        cursor.execute(
            _PLACES.format(where=condition),
            [list(keys), *values],
        )
        found = cursor.fetchall()
    environments = environments_visible_to(actor).in_bulk({row[1] for row in found})
    places: dict[str, list[tuple[Environment, int]]] = defaultdict(list)
    for key, environment_id, count in found:
        if environment_id in environments:
            places[key].append((environments[environment_id], count))
    for listed in places.values():
        listed.sort(key=lambda place: (not place[0].is_production, -place[0].position, place[0].slug))
    return dict(places)


def environment_called(actor: User, text: str) -> Environment | None:
    """Return the environment `team/slug` if `actor` can see it, else None."""
    team, _, slug = text.partition("/")
    return environments_visible_to(actor).filter(team__slug=team, slug=slug).first()


# Images of source repositories with a tag or in an environment; of an index, its platform manifests.
_UNKNOWN: Final = """
SELECT count(DISTINCT image.id) FROM (
    SELECT repository_id, image_id FROM lifecycle_tag
    UNION ALL SELECT repository_id, image_id FROM lifecycle_slot WHERE image_id IS NOT NULL
) tag
JOIN lifecycle_repository repository ON repository.id = tag.repository_id AND repository.source_id IS NULL
JOIN accounts_team team ON team.id = repository.team_id
LEFT JOIN lifecycle_indexentry entry ON entry.index_id = tag.image_id
JOIN lifecycle_image image ON image.id = coalesce(entry.child_id, tag.image_id) AND image.kind = 'manifest'
WHERE (image.scanned_at IS NULL OR image.unjudged_count > 0 OR image.package_count = 0) AND {where}
"""


def unknown_images(actor: User, *, team: str = "") -> int:
    """Return the number of images in use that `actor` can see and of which something is unknown.

    They are not scanned, none of their packages was recognised, or some packages could not be judged. No remedy counts
    what is unknown. One query.
    """
    where, values = visible_sql(actor, Verb.IMAGE_VIEW, "repository")
    if team:
        where, values = f"{where} AND team.slug = %s", [*values, team]
    with connection.cursor() as cursor:
        cursor.execute(_UNKNOWN.format(where=where), values)
        count: int = cursor.fetchone()[0]
    return count


def rows_of(actor: User, key: str) -> QuerySet[Remedy]:
    """Return the rows of a group in repositories that `actor` can see, worst first."""
    rows = Remedy.objects.filter(key=key, repository__in=repositories_visible_to(actor))
    return rows.select_related("repository__team", "image").order_by(
        "-critical", "-high", "-medium", "repository__name"
    )


@dataclass(frozen=True, slots=True)
class Closed:
    """An advisory that a group closes: its worst severity, the packages, and in how many images."""

    name: str
    severity: str
    packages: tuple[str, ...]
    images: int
    is_exploited: bool
    epss: float | None


def closed_by(rows: Sequence[Remedy]) -> list[Closed]:
    """Return the advisories that these rows close, worst first."""
    severities: dict[str, str] = {}
    packages: dict[str, set[str]] = defaultdict(set)
    images: dict[str, int] = defaultdict(int)
    exploits: dict[str, tuple[bool, float | None]] = {}
    for row in rows:
        for name, severity, package, is_exploited, epss, *_ in row.closes:
            exploits[name] = (is_exploited, epss)
            severities[name] = min(severity, severities.get(name, severity), key=RANKS.__getitem__)
            packages[name].add(package)
        for name in {item[0] for item in row.closes}:
            images[name] += 1
    found = [
        Closed(name, severities[name], tuple(sorted(packages[name])), images[name], *exploits[name])
        for name in severities
    ]
    return sorted(
        found,
        key=lambda item: (not item.is_exploited, RANKS[item.severity], -(item.epss or 0), -item.images, item.name),
    )


def slots_of(actor: User, repository_ids: Sequence[int]) -> dict[int, list[Slot]]:
    """Return {repository id: slots with any image of it}, of environments that `actor` can see."""
    rows = Slot.objects.filter(
        repository__in=repository_ids, image__isnull=False, environment__in=environments_visible_to(actor)
    )
    slots: dict[int, list[Slot]] = defaultdict(list)
    for slot in rows.select_related("environment").order_by("environment__position"):
        slots[slot.repository_id].append(slot)
    return dict(slots)


COMMENTS_SHOWN: Final = 200


def comments_on(work: Sequence[Work]) -> list[FixComment]:
    """Return the comments on a remedy, of the teams whose work the reader sees, oldest first; at most 200."""
    rows = FixComment.objects.filter(fix__in=[item.id for item in work]).select_related("author", "fix__team")
    return sorted(rows.order_by("-pk")[:COMMENTS_SHOWN], key=lambda comment: comment.pk)
