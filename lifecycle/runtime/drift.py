"""Drift: what runs differs from what was promoted. The kinds `drift.*`, `isolation`, and reporters that are silent.

One pass reads all that runs now and says what is wrong with it; alerts without a cause close. It runs after each report
and every 30 seconds, so that a quarantine or a moved tag counts although nothing was reported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection
from django.db.models import Q

from lifecycle.alerts.models import Alert
from lifecycle.alerts.raising import close, raise_alerts
from lifecycle.alerts.telling import tell_teams
from lifecycle.alerts.types import Cause, register
from lifecycle.clusters.models import Cluster, NamespaceBinding
from lifecycle.clusters.queries import binding_for, bindings_of
from lifecycle.core import clock, locks
from lifecycle.core.severities import HIGH, SEVERITIES
from lifecycle.environments.models import Environment
from lifecycle.inventory.constants import SILENT_AFTER
from lifecycle.inventory.models import Reporter, RunningImage
from lifecycle.inventory.queries import digests_shown
from lifecycle.policies.queries import rules_of_environments
from lifecycle.quarantine.queries import covers_of
from lifecycle.registry.models import Image, Repository
from lifecycle.runtime import breakglass, bypass, isolation
from lifecycle.runtime.ages import Dates, age_rules, why_too_old
from lifecycle.runtime.resolving import image_name, is_known_home

BEHIND_AFTER: Final = timedelta(hours=24)
DOUBLED_FOR: Final = timedelta(hours=1)
GONE: Final = "It does not run any more, or its cause is gone."
MANY: Final = "drift.many"
AUTHORITY: Final = "admission.authority"
FOREIGN_MAX: Final = 200  # live alerts about one cluster for a team whose cluster it is not; more are one
_LOCK: Final = 0x64726674  # "drft"
_BATCH: Final = 5000

# What runs, with the indexes that list it and the platforms that it lists. Attestations are no platforms.
_AROUND: Final = """
SELECT wanted.id,
       ARRAY(SELECT entry.index_id FROM lifecycle_indexentry entry WHERE entry.child_id = wanted.id),
       ARRAY(SELECT entry.child_id FROM lifecycle_indexentry entry
             JOIN lifecycle_image child ON child.id = entry.child_id AND child.kind <> 'artifact'
             WHERE entry.index_id = wanted.id AND NOT starts_with(entry.platform, 'unknown'))
FROM (
    SELECT image_id FROM lifecycle_runningimage WHERE until IS NULL AND image_id IS NOT NULL
    UNION SELECT platform_id FROM lifecycle_runningimage WHERE until IS NULL AND platform_id IS NOT NULL
) AS wanted(id)
"""
_HOMES: Final = """
SELECT held.image_id, array_agg(DISTINCT home.id ORDER BY home.id) FROM lifecycle_repositoryimage held
JOIN lifecycle_repository place ON place.id = held.repository_id
JOIN lifecycle_repository home ON home.id = coalesce(place.source_id, place.id)
JOIN lifecycle_registry registry ON registry.id = place.registry_id
WHERE held.image_id = ANY(%s::bigint[]) AND held.removed_at IS NULL AND (registry.is_managed OR registry.is_added)
GROUP BY held.image_id
"""
_REQUESTS: Final = """
SELECT image_id, environment_id, bool_or(state = 'succeeded'), (array_agg(state ORDER BY id DESC))[1]
FROM lifecycle_promotionrequest WHERE image_id = ANY(%s::bigint[]) GROUP BY image_id, environment_id
"""
_STAYS: Final = """
SELECT DISTINCT stay.image_id, slot.environment_id FROM lifecycle_occupancy stay
JOIN lifecycle_slot slot ON slot.id = stay.slot_id WHERE stay.image_id = ANY(%(ids)s::bigint[])
UNION SELECT image_id, environment_id FROM lifecycle_slot WHERE image_id = ANY(%(ids)s::bigint[])
"""
_SLOTS: Final = """
SELECT repository_id, environment_id, image_id, since FROM lifecycle_slot
WHERE repository_id = ANY(%s::bigint[]) AND image_id IS NOT NULL
"""
_TAGS: Final = "SELECT repository_id, name, image_id FROM lifecycle_tag WHERE repository_id = ANY(%s::bigint[])"
_REBUILT: Final = """
SELECT DISTINCT ON (old_image_id) old_image_id, new_image_id FROM lifecycle_rebuildjob
WHERE state = 'done' AND new_image_id <> old_image_id AND old_image_id = ANY(%s::bigint[])
ORDER BY old_image_id, id DESC
"""


_Found = list[tuple[str, str]]  # kind of alert, and why


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    label: str
    words: str
    severity: str
    why_not_resolved: str = ""


_KINDS: Final = (
    _Kind("drift.rogue", "Unknown image runs", "An image runs that no registry of yours has.", "high"),
    _Kind("drift.not_promoted", "Runs without promotion", "An image runs that was promoted nowhere.", "high"),
    _Kind(
        "drift.wrong_environment", "Runs in another environment", "An image was promoted, but not to where it runs.",
        "medium",
    ),
    _Kind("drift.quarantined", "Quarantined image runs", "A quarantine covers an image that runs.", "critical"),
    _Kind("drift.rejected", "Rejected image runs", "The last request for an image was rejected, and it runs.", "high"),
    _Kind("drift.tag_moved", "Tag moved on", "The tag of a workload names another image than what runs.", "low"),
    _Kind("drift.behind", "Behind its environment", "The environment has another image for more than a day.", "low"),
    _Kind(
        "drift.stale", "Outdated image runs",
        "An image that runs is older than its environment allows, or a finished rebuild of it is not deployed.",
        "medium",
    ),
    _Kind(
        MANY, "More drift in a cluster", f"More than {FOREIGN_MAX} images of a team drift in another team's cluster.",
        "high",
    ),
    _Kind(
        bypass.KIND, "Admission was not asked", "An image runs in an enforcing cluster without a recorded decision.",
        "high",
    ),
    _Kind(
        isolation.KIND, "Isolation check fails", "A pod that runs fails an isolation check of its environment.",
        "medium",
    ),
    _Kind("agent.silent", "Agent is silent", "No report came from a cluster or host for 10 minutes.", "medium"),
    _Kind(
        AUTHORITY, "New authority not trusted",
        "The webhooks of a cluster do not trust the new authority of the admission port.", "high",
        "It closes when all live agents of the cluster report the new bundle.",
    ),
    _Kind("agent.doubled", "Two agents report", "Two agents report as the same one; the newer counts.", "medium"),
    _Kind(
        breakglass.KIND, "Break-glass to review", "Somebody broke the glass in a cluster, and nobody reviewed it.",
        "high", breakglass.WHY_NOT_RESOLVED,
    ),
)  # fmt: skip
_SEVERITY: Final = {kind.name: kind.severity for kind in _KINDS}


def _causes_now(alerts: Sequence[Alert]) -> dict[int, Cause]:
    now = {cause.fingerprint: cause for cause in causes_of_now(clock.now())}
    return {alert.pk: now[alert.fingerprint] for alert in alerts if alert.fingerprint in now}


for _kind in _KINDS:
    register(
        _kind.name, _kind.label, _kind.words, causes_now=_causes_now, why_not_resolved=_kind.why_not_resolved
    )  # fmt: skip


def sweep(now: datetime) -> tuple[list[Alert], int]:
    """Raise alerts of new causes, refresh and close the others, tell the teams; return (new, number closed).

    In the caller's transaction. Safe to run twice and at once: passes wait for each other.
    """
    locks.wait_for(_LOCK)
    causes: dict[str, Cause] = {}
    for cause in causes_of_now(now):
        causes.setdefault(cause.fingerprint, cause)
    rows = Alert.objects.select_for_update(of=("self",)).filter(kind__in=_SEVERITY)
    live = {row.fingerprint: row for row in rows.exclude(state=Alert.State.RESOLVED).order_by("pk")}
    # A person resolved it: `passes` looks a day later whether the cause persists.
    answered = set(rows.filter(resolved_by__isnull=False, rechecked_at=None).values_list("fingerprint", flat=True))
    new = raise_alerts([cause for name, cause in causes.items() if name not in live and name not in answered], now)
    gone = [row for name, row in live.items() if name not in causes]
    close(gone, now, GONE)
    _refresh(live, causes, now)
    tell_teams(new, now)
    tell_teams([row for row in gone if row.told_at is not None], now, is_end=True)
    tell_teams(breakglass.to_repeat(now), now, is_reminder=True)
    return new, len(gone)


def _refresh(live: Mapping[str, Alert], causes: Mapping[str, Cause], now: datetime) -> None:
    changed = []
    for name, row in live.items():
        cause = causes.get(name)
        if cause is None:
            continue
        is_same = (row.evidence, row.severity) == (dict(cause.evidence), cause.severity)
        if not is_same or row.environment_id != cause.environment_id:
            row.evidence, row.severity, row.last_at = dict(cause.evidence), cause.severity, now
            row.environment_id = cause.environment_id
            changed.append(row)
    Alert.objects.bulk_update(changed, ["evidence", "severity", "last_at", "environment"], batch_size=_BATCH)


def causes_of_now(now: datetime) -> list[Cause]:
    """Return all drift of now, one cause for each kind, workload and digest."""
    rows = list(
        RunningImage.objects.filter(until=None)
        .select_related("cluster", "environment__team", "repository__source")
        .order_by("pk")
    )
    facts = _Facts(rows, now)
    causes = [(row, cause) for row in rows for cause in (*_drift_of(row, facts, now), *_isolation_of(row, facts))]
    return _without_floods(causes) + list(_reporters(now)) + list(_authorities(now)) + list(breakglass.causes(now))


def _without_floods(causes: Sequence[tuple[RunningImage, Cause]]) -> list[Cause]:
    """Return the causes; beyond FOREIGN_MAX of one cluster for another team than its own, the rest is one."""
    kept: dict[str, Cause] = {}
    counts: Counter[tuple[int, int]] = Counter()
    more: dict[tuple[int, int], tuple[RunningImage, set[str]]] = {}
    for row, cause in causes:
        if cause.fingerprint in kept:
            continue
        key = (row.cluster_id, cause.team_id)
        counts[key] += cause.team_id != row.cluster.team_id
        if counts[key] <= FOREIGN_MAX:
            kept[cause.fingerprint] = cause
        else:
            more.setdefault(key, (row, set()))[1].add(cause.fingerprint)
    for (cluster_id, team_id), (row, names) in more.items():
        why = f"{len(names)} more workloads of cluster {row.cluster} run images of the team that drifted."
        many = Cause(MANY, team_id, cluster_id=cluster_id, severity=_SEVERITY[MANY], evidence={"why": why})
        kept[many.fingerprint] = many
    return list(kept.values())


class _Facts:
    """What is known of everything that runs. A fixed number of queries."""

    def __init__(self, rows: Sequence[RunningImage], now: datetime) -> None:
        self.above: dict[int, frozenset[int]] = {}
        self.below: dict[int, frozenset[int]] = {}
        with connection.cursor() as cursor:
            cursor.execute(_AROUND)
            for image_id, indexes, platforms in cursor.fetchall():
                self.above[image_id], self.below[image_id] = frozenset(indexes), frozenset(platforms)
            ids = sorted({pk for image, above in self.above.items() for pk in (image, *above, *self.below[image])})
            cursor.execute(_HOMES, [ids])
            self.homes: dict[int, list[int]] = dict(cursor.fetchall())
            cursor.execute(_REQUESTS, [ids])
            self.requests = {(image, place): (done, last) for image, place, done, last in cursor.fetchall()}
            cursor.execute(_STAYS, {"ids": ids})
            self.stays: dict[int, set[int]] = defaultdict(set)
            for image, place in cursor.fetchall():
                self.stays[image].add(place)
            for (image, place), (done, _) in self.requests.items():
                if done:
                    self.stays[image].add(place)
            families = {row.repository.source_id or row.repository.pk for row in rows if row.repository}
            cursor.execute(_SLOTS, [sorted(families)])
            self.slots = {(repository, place): (image, since) for repository, place, image, since in cursor.fetchall()}
            cursor.execute(_TAGS, [sorted({row.repository.pk for row in rows if row.repository})])
            self.tags = {(repository, name): image for repository, name, image in cursor.fetchall()}
            cursor.execute(_REBUILT, [ids])
            self.rebuilt = dict(cursor.fetchall())
        self.covers = covers_of(ids) if ids else {}
        homes = {pk for listed in self.homes.values() for pk in listed}
        self.repositories = Repository.objects.in_bulk(homes | families)
        clusters = Cluster.objects.filter(pk__in={row.cluster_id for row in rows})
        self.bindings = {cluster.pk: list(bindings_of(cluster)) for cluster in clusters}
        self.bypassed = bypass.found(rows, self.bindings, now)
        places = [binding.environment for row in rows if (binding := self.binding(row)) is not None]
        rules = rules_of_environments({place.pk: place for place in places}.values())
        self.exposed = isolation.found(rows, self.bindings, rules)
        self.age_rules = {pk: found for pk, each in rules.items() if (found := age_rules(each))}
        self.dates = _dates(ids) if self.age_rules else {}
        for row in rows:
            row.is_image_seen = self.is_known_to(row, self.side_of(row))
        self.shown = digests_shown(rows)  # as reported, where the image is no business of the cluster's side

    def binding(self, row: RunningImage) -> NamespaceBinding | None:
        return binding_for(self.bindings[row.cluster_id], row.namespace)

    def why_too_old(self, row: RunningImage, environment: Environment | None, now: datetime) -> str:
        """Return why the platform that runs is too old; without one that is known, the oldest of its index."""
        rules = self.age_rules.get(environment.pk, ()) if environment is not None else ()
        runs = {row.platform_id} if row.platform_id is not None else {row.image_id, *self.perhaps(row)}
        return why_too_old((self.dates[pk] for pk in runs if pk in self.dates), rules, now) if rules else ""

    def around_of(self, row: RunningImage) -> frozenset[int]:
        """Return the image and the platform that run, with the indexes that list them: who vouches for these, does so.

        Not the other platforms of the index: an index can list one that was promoted, and run another.
        """
        runs = {pk for pk in (row.image_id, row.platform_id) if pk is not None}
        return frozenset(runs.union(*(self.above[pk] for pk in runs)))

    def perhaps(self, row: RunningImage) -> frozenset[int]:
        """Return the platforms of an index of which nobody knows which one runs."""
        return self.below[row.image_id] if row.image_id is not None and row.platform_id is None else frozenset()

    def promoted_to(self, row: RunningImage) -> set[int]:
        """Return the environments to which it was promoted; of an index, also those of all its platforms."""
        places = [self.stays.get(pk, set()) for pk in self.perhaps(row)]
        return _any_of(self.stays, self.around_of(row)) | (set.intersection(*places) if places else set())

    def homes_of(self, row: RunningImage) -> set[int]:
        """Return the families that have it, or all its platforms if nobody knows which one runs."""
        parts = [self.homes.get(pk, []) for pk in self.perhaps(row)]
        whole = _any_of(self.homes, self.around_of(row))
        return whole | {pk for part in parts for pk in part} if all(parts) else whole

    def last_state(self, ids: Iterable[int], environment: Environment) -> str:
        found = [self.requests[pk, environment.pk] for pk in ids if (pk, environment.pk) in self.requests]
        return "rejected" if any(last == "rejected" for _, last in found) else ""

    def named(self, row: RunningImage) -> Repository | None:
        """Return the family that the name names, if it has what runs, or belongs to the cluster's team.

        Whoever reports can invent a name, and another team must not get alerts for it.
        """
        if row.repository is None:
            return None
        family = self.repositories.get(row.repository.source_id or row.repository.pk)
        is_so = family is not None and (family.pk in self.homes_of(row) or family.team_id == row.cluster.team_id)
        return family if is_so else None

    def side_of(self, row: RunningImage) -> tuple[int, ...]:
        """Return the teams who run it, by id: that of the cluster, and of the environment that is bound there."""
        binding = self.binding(row)
        return (row.cluster.team_id, *((binding.environment.team_id,) if binding is not None else ()))

    def is_known_to(self, row: RunningImage, side: Collection[int]) -> bool:
        """Return whether those who run it may know that the image exists here.

        It is in a repository of theirs, or in one that is open to all, or was promoted to their environment. Without an
        environment, whoever knows its name and its digest runs it by both: nothing is wrong with that.
        """
        homes, binding = self.homes_of(row), self.binding(row)
        if any(is_known_home(self.repositories[pk], side) for pk in homes if pk in self.repositories):
            return True
        if binding is not None:
            return binding.environment_id in self.promoted_to(row)
        return row.repository is not None and (row.repository.source_id or row.repository.pk) in homes

    def family(self, row: RunningImage, side: Collection[int]) -> Repository | None:
        """Return the repository of a team of `side` that answers for the image: by its name, else one that has it."""
        named = self.named(row)
        if named is not None and named.team_id in side:
            return named
        homes = [self.repositories[pk] for pk in sorted(self.homes_of(row)) if pk in self.repositories]
        return next((home for team_id in side for home in homes if home.team_id == team_id), None)


def _dates(ids: Collection[int]) -> dict[int, Dates]:
    rows = Image.objects.filter(pk__in=ids).exclude(kind=Image.Kind.INDEX)
    columns = rows.values_list("pk", "created_at", "first_seen_at")
    return {pk: Dates(clock.stated(created_at), first_seen_at) for pk, created_at, first_seen_at in columns}


def _any_of(listed: Mapping[int, Collection[int]], ids: Iterable[int]) -> set[int]:
    return {each for pk in ids for each in listed.get(pk, ())}


def _drift_of(row: RunningImage, facts: _Facts, now: datetime) -> list[Cause]:
    """Return what is wrong, for those who run it; and for the team of the image, when it is another one."""
    if not row.digest:
        return []  # not resolved: nobody knows what it is
    name, binding = image_name(row.reference), facts.binding(row)
    side, owner = facts.side_of(row), facts.named(row)
    tag = name.tag if name is not None and not name.digest else ""
    causes = []
    if owner is not None and owner.team_id not in side and row.image_id is not None:
        causes += [_cause(*one, row, facts, owner) for one in _known(row, facts, owner, tag, now)]
    found = [(bypass.KIND, bypass.WHY)] if bypass.key_of(row) in facts.bypassed else []
    if row.image_id is not None and facts.homes_of(row) and row.is_image_seen:
        named = owner if owner is not None and owner.team_id in side else None
        found += _known(row, facts, named, tag, now)
    else:
        allowed = binding.allowed_hosts if binding is not None else []
        if name is None or name.host not in allowed:
            found.append(("drift.rogue", "No registry of yours has this image."))
        if _quarantine(row, facts):  # as admission says it: without the reason
            found.append(("drift.quarantined", "A quarantine covers this image."))
    family = facts.family(row, side) if row.is_image_seen else None
    return causes + [_cause(*one, row, facts, family) for one in found]


def _known(row: RunningImage, facts: _Facts, family: Repository | None, tag: str, now: datetime) -> _Found:
    """Return what is wrong with an image of ours. `family`: the one that its name names, for those who may know it."""
    binding = facts.binding(row)
    environment = binding.environment if binding is not None else None
    ids, found = facts.around_of(row) | facts.perhaps(row), []
    if environment is not None:
        found += _promotion(row, facts, environment)
    found += _quarantine(row, facts)
    if row.repository is not None and family is not None and tag:
        named = facts.tags.get((row.repository.pk, tag))
        if named is not None and named not in ids:
            found.append(("drift.tag_moved", f"The tag {tag} of {row.repository} names another image now."))
    if family is not None and environment is not None:
        slot = facts.slots.get((family.pk, environment.pk))
        if slot is not None and slot[0] not in ids and slot[1] is not None and slot[1] <= now - BEHIND_AFTER:
            found.append(("drift.behind", f"{environment} has another image since {slot[1]:%Y-%m-%d %H:%M} UTC."))
    result = next((facts.rebuilt[pk] for pk in ids if pk in facts.rebuilt), None)
    waits = "A finished rebuild of this image waits to be deployed." if result is not None and result not in ids else ""
    if stale := " ".join(filter(None, (facts.why_too_old(row, environment, now), waits))):
        found.append(("drift.stale", stale))
    return found


def _isolation_of(row: RunningImage, facts: _Facts) -> Iterator[Cause]:
    failures, binding = facts.exposed.get(bypass.key_of(row), []), facts.binding(row)
    if binding is None:
        return
    family = facts.family(row, facts.side_of(row))
    for failure in failures:
        severity = HIGH if failure.breaks_baseline else _SEVERITY[isolation.KIND]
        more = {"check": failure.check, "mode": failure.mode, "fix": failure.fix}
        cause = _cause(isolation.KIND, failure.why, row, facts, family, severity=severity)
        yield replace(cause, rule=failure.check, evidence={**cause.evidence, **more})


def _promotion(row: RunningImage, facts: _Facts, environment: Environment) -> _Found:
    ids = facts.around_of(row) | facts.perhaps(row)
    promoted = facts.promoted_to(row)
    if environment.pk in promoted:
        return []
    if facts.last_state(ids, environment) == "rejected":
        return [("drift.rejected", f"Its last request for {environment} was rejected.")]
    if promoted:
        return [("drift.wrong_environment", f"It was promoted, but not to {environment}.")]
    return [("drift.not_promoted", f"It was not promoted to {environment}, nor to another environment.")]


def _quarantine(row: RunningImage, facts: _Facts) -> _Found:
    covers = next((facts.covers[pk] for pk in (row.image_id, row.platform_id) if pk in facts.covers), None)
    return [("drift.quarantined", covers[0].words)] if covers else []


def _cause(
    kind: str,
    why: str,
    row: RunningImage,
    facts: _Facts,
    family: Repository | None,
    *,
    severity: str = "",
) -> Cause:
    """Return the cause for the team of a family; without one, for those who run it: see `alerts.sight`."""
    side, binding = facts.side_of(row), facts.binding(row)
    environment = binding.environment if binding is not None else None
    is_theirs = family is not None and family.team_id not in side
    owner = environment.team_id if kind == "drift.rogue" and environment is not None else row.cluster.team_id
    return Cause(
        kind,
        family.team_id if family is not None else owner,
        digest=(row.digest if is_theirs else facts.shown[row.pk]) or None,
        cluster_id=row.cluster_id,
        namespace=row.namespace,
        workload=row.workload,
        environment_id=environment.pk if environment is not None else None,
        severity=_raised(
            severity or _SEVERITY[kind], is_production=environment is not None and environment.is_production
        ),
        images=1,
        repositories={family.pk: 1} if family is not None else {},
        evidence={
            "why": why,
            "image": row.reference,
            "containers": row.containers,
            "environment": f"{environment.team.slug}/{environment.slug}" if environment is not None else "",
        },
    )


def _raised(severity: str, *, is_production: bool) -> str:
    """Return the severity one step higher in production."""
    return SEVERITIES[max(SEVERITIES.index(severity) - 1, 0)] if is_production else severity


def _reporters(now: datetime) -> Iterable[Cause]:
    silent = Q(is_import=False, ended_at=None, seen_at__lt=now - SILENT_AFTER)
    doubled = Q(doubled_at__gt=now - DOUBLED_FOR)
    for reporter in Reporter.objects.filter(silent | doubled).select_related("cluster").order_by("pk"):
        cluster = reporter.cluster
        bound = {row.environment.is_production for row in bindings_of(cluster)}
        wrong: list[tuple[str, str]] = []
        if reporter.state == "silent":
            last = f"{reporter.seen_at:%Y-%m-%d %H:%M}"
            wrong.append(("agent.silent", f"The last report came at {last} UTC. What ran then counts as running."))
        if reporter.doubled_at is not None and reporter.doubled_at > now - DOUBLED_FOR:
            wrong.append(("agent.doubled", "Stop one of the agents, or give it another name (REPORTER)."))
        for kind, why in wrong:
            evidence: dict[str, Any] = {"why": why}
            severity = _raised(_SEVERITY[kind], is_production=True in bound)
            yield Cause(
                kind, cluster.team_id, rule=reporter.name, cluster_id=cluster.pk, severity=severity, evidence=evidence
            )


def _authorities(now: datetime) -> Iterator[Cause]:
    """Yield the clusters that a new authority of the admission port waits for, or waited for in vain."""
    for cluster in Cluster.objects.filter(authority_waits_until__isnull=False, ended_at=None).order_by("pk"):
        until = cluster.authority_waits_until
        is_over = until is not None and until <= now
        used = f"since {until:%Y-%m-%d %H:%M} UTC" if is_over else f"on {until:%Y-%m-%d %H:%M} UTC at the latest"
        why = (
            f"Its agents did not confirm the new authority of the admission port, which is used {used}. From then on,"
            " the webhooks cannot ask until they trust it. Look at the agents, or apply the manifest again."
        )
        is_production = any(row.environment.is_production for row in bindings_of(cluster))
        severity = _raised(_SEVERITY[AUTHORITY], is_production=is_production or is_over)
        yield Cause(
            AUTHORITY,
            cluster.team_id,
            rule="authority",
            cluster_id=cluster.pk,
            severity=severity,
            evidence={"why": why},
        )


def is_due() -> bool:
    """Return whether a pass can find anything: something runs or reports, a review is owed, or an alert lives."""
    return (
        RunningImage.objects.filter(until=None).exists()
        or Reporter.objects.exists()
        or breakglass.is_owed()
        or Cluster.objects.filter(authority_waits_until__isnull=False).exists()
        or Alert.objects.filter(kind__in=_SEVERITY).exclude(state=Alert.State.RESOLVED).exists()
    )
