"""Events from clusters: taken at once, and folded into alerts by a job.

One act of an attacker can make a hundred events, and a broken rule ten thousand. Equal events are one alert with a
count. Beyond 200 new alerts a minute, those of a cluster become one alert `flood`; critical ones never do, unless
they are for another team than the cluster's.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final

import orjson
from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce

from accounts.queries import system_user
from lifecycle.alerts.models import Alert
from lifecycle.alerts.raising import close, raise_alerts
from lifecycle.alerts.telling import tell_teams
from lifecycle.alerts.types import Cause, register
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.queries import binding_for, bindings_of
from lifecycle.core import clock, locks
from lifecycle.core.severities import CRITICAL, HIGH, SEVERITIES
from lifecycle.inventory.models import RunningContainer
from lifecycle.jobs import services as jobs
from lifecycle.registry.models import Image, IndexEntry, Repository, RepositoryImage, Tag
from lifecycle.runtime.kinds import EVENTS
from lifecycle.runtime.models import RuntimeEvent
from lifecycle.runtime.resolving import image_name, is_known_home, repositories_called
from lifecycle.runtime.times import read_time
from lifecycle.runtime.types import EventsWaiting, SeenEvent

NEW_MAX: Final = 200  # new alerts of a cluster in a minute; more are one flood
FOREIGN_MAX: Final = 20  # of these for one team whose cluster it is not, whatever their severity
MINUTE: Final = timedelta(minutes=1)
KEEP_IDS: Final = timedelta(hours=24)  # so long, an event with the same id is the same event
ENDED_FOR: Final = timedelta(hours=1)  # so long after its end, an event about a container is tied to it
QUIET_FOR: Final = timedelta(days=30)  # an alert without an event for so long closes
QUIET: Final = "No such event for 30 days."
TOLD_MAX: Final = 5000
# Events of one cluster that wait. A stolen secret must not fill the disk: one event has up to 64 KB here.
WAITING_MAX: Final = 20_000
IDS_MAX: Final = 200_000  # ids of folded events that are known for one cluster; the oldest are forgotten first
_COUNTED_FOR: Final = timedelta(seconds=1)
_LOCK: Final = 0x65766E74  # "evnt"
_BATCH: Final = 2000
_RULES_SHOWN: Final = 5
_CONTAINERS_MAX: Final = 20_000


def _nothing_persists(alerts: Sequence[Any]) -> Mapping[int, Cause]:
    return {}  # an event happened once: when a person resolved its alert, only another one opens a new alert


FALCO: Final = register(
    "falco", "Falco event", "Falco saw something in a cluster of the team.", causes_now=_nothing_persists
)
EVENT: Final = register(
    "event", "Event", "Another system sent a CloudEvent about something that runs.", causes_now=_nothing_persists
)
FLOOD: Final = register(
    "flood", "Flood of events", f"More than {NEW_MAX} different events a minute came from one cluster.",
    causes_now=_nothing_persists,
)  # fmt: skip
KINDS: Final = (FALCO.name, EVENT.name, FLOOD.name)

_TAKE: Final = """
INSERT INTO lifecycle_runtimeevent (cluster_id, kind, event_id, event, received_at)
SELECT %s, kind, event_id, event, %s FROM unnest(%s::text[], %s::text[], %s::jsonb[]) AS given(kind, event_id, event)
ON CONFLICT DO NOTHING
"""
_NEXT: Final = """
SELECT waiting.id FROM unnest(%(clusters)s::bigint[]) AS cluster(id) CROSS JOIN LATERAL (
    SELECT id FROM lifecycle_runtimeevent WHERE cluster_id = cluster.id AND event IS NOT NULL ORDER BY id
    LIMIT %(share)s
) AS waiting
"""


class _Wake:
    """When this process last queued the job. The schedule queues it too, so that a lost wake-up does no harm."""

    at: datetime | None = None


class _Waiting:
    """How many events of a cluster wait, as counted a moment ago, with what this process took since."""

    counts: Final[dict[int, tuple[datetime, int]]] = {}


def _refuse_if_full(cluster: Cluster, more: int, now: datetime) -> None:
    counted_at, count = _Waiting.counts.get(cluster.pk, (now - _COUNTED_FOR, 0))
    if not timedelta() <= now - counted_at < _COUNTED_FOR:
        waiting = RuntimeEvent.objects.filter(cluster=cluster, event__isnull=False)
        counted_at, count = now, waiting[: WAITING_MAX + 1].count()
    is_full = count >= WAITING_MAX
    _Waiting.counts[cluster.pk] = (counted_at, count if is_full else count + more)
    if is_full:
        raise EventsWaiting(f"{WAITING_MAX:,} events of this cluster wait. Send it again later.")


def take(cluster: Cluster, events: Sequence[SeenEvent]) -> None:
    """Store events of a cluster. One that came in the last day, by its id, is the same event.

    Raises EventsWaiting when WAITING_MAX wait already; each web process can take as many more in a second.
    """
    now = clock.now()
    _refuse_if_full(cluster, len(events), now)
    names = [hashlib.sha256(event.event_id.encode()).hexdigest() if event.event_id else "" for event in events]
    with connection.cursor() as cursor:
        documents = [orjson.dumps(asdict(event)).decode() for event in events]
        cursor.execute(_TAKE, [cluster.pk, now, [event.kind for event in events], names, documents])
    if _Wake.at is None or not timedelta() <= now - _Wake.at < timedelta(seconds=1):
        _Wake.at = now
        queue()


def queue() -> None:
    """Queue the job that folds events."""
    jobs.queue(EVENTS, subject_id=0, actor=system_user(), dedupe_key="fold")


def is_pending() -> bool:
    """Return whether events wait."""
    return RuntimeEvent.objects.filter(event__isnull=False).exists()


def fold_some(now: datetime) -> tuple[int, list[Alert]]:
    """Fold up to 2,000 waiting events, in the caller's transaction; return their number and the new alerts."""
    locks.wait_for(_LOCK)
    rows = _next()
    by_cluster: dict[int, list[RuntimeEvent]] = defaultdict(list)
    for row in rows:
        by_cluster[row.cluster_id].append(row)
    new = [alert for listed in by_cluster.values() for alert in _fold(listed[0].cluster, listed, now)]
    ids = [row.pk for row in rows]
    RuntimeEvent.objects.filter(pk__in=ids, event_id="").delete()
    RuntimeEvent.objects.filter(pk__in=ids).update(event=None)
    tell_teams([alert for alert in new if alert.severity == CRITICAL], now)
    return len(rows), new


def _next() -> list[RuntimeEvent]:
    """Return up to _BATCH waiting events, as many of each cluster: the flood of one must not delay the others."""
    waiting = RuntimeEvent.objects.filter(event__isnull=False)
    clusters = Cluster.objects.filter(Exists(waiting.filter(cluster=OuterRef("pk")))).select_related("team")
    by_id = {cluster.pk: cluster for cluster in clusters.order_by("?")[:_BATCH]}
    if not by_id:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_NEXT, {"clusters": list(by_id), "share": max(_BATCH // len(by_id), 1)})
        rows = list(waiting.filter(pk__in=[pk for (pk,) in cursor.fetchall()]).order_by("pk"))
    for row in rows:
        row.cluster = by_id[row.cluster_id]
    return rows


def _fold(cluster: Cluster, rows: Sequence[RuntimeEvent], now: datetime) -> list[Alert]:
    events = [_read(row) for row in rows]
    ties = _Ties(cluster, events)
    causes: dict[str, Cause] = {}
    counts: Counter[str] = Counter()
    for cause in chain.from_iterable(map(ties.causes, events)):
        counts[cause.fingerprint] += 1
        before = causes.get(cause.fingerprint)
        if before is None or SEVERITIES.index(cause.severity) <= SEVERITIES.index(before.severity):
            causes[cause.fingerprint] = cause
    kept = _without_flood(cluster, causes, counts, now)
    raised = raise_alerts(kept.values(), now)
    more = defaultdict(list)
    for name in kept:
        more[counts[name] - 1].append(name)
    for extra, names in more.items():
        if extra:
            live = Alert.objects.filter(fingerprint__in=names).exclude(state=Alert.State.RESOLVED)
            live.update(count=F("count") + extra)
    return [alert for alert in raised if alert.told_at is None]


def _read(row: RuntimeEvent) -> SeenEvent:
    return SeenEvent(**row.event | {"at": read_time(row.event["at"])})


def _without_flood(
    cluster: Cluster, causes: Mapping[str, Cause], counts: Counter[str], now: datetime
) -> dict[str, Cause]:
    """Return the causes to raise: beyond NEW_MAX new ones a minute, all that are not critical are one flood.

    Whoever reports chooses the names of what runs. For another team than the cluster's, critical ones count too, and
    only FOREIGN_MAX are raised a minute.
    """
    live = Alert.objects.filter(fingerprint__in=causes).exclude(state=Alert.State.RESOLVED)
    known = set(live.values_list("fingerprint", flat=True))
    recent = Alert.objects.filter(cluster=cluster, kind__in=KINDS[:2], first_at__gt=now - MINUTE)
    left = NEW_MAX - recent.exclude(severity=CRITICAL).count()
    foreign = recent.exclude(team=cluster.team_id).values_list("team").annotate(count=Count("pk"))
    told: Counter[int] = Counter(dict(foreign.order_by()))
    kept: dict[str, Cause] = {}
    floods: dict[int, list[str]] = defaultdict(list)
    for name, cause in causes.items():
        is_foreign = cause.team_id != cluster.team_id
        if name in known:
            kept[name] = cause
        elif is_foreign and told[cause.team_id] >= FOREIGN_MAX:
            floods[cause.team_id].append(name)
        elif cause.severity == CRITICAL:
            kept[name] = cause
            told[cause.team_id] += is_foreign
        elif left > 0:
            kept[name] = cause
            told[cause.team_id] += is_foreign
            left -= 1
        else:
            floods[cluster.team_id].append(name)
    for team_id, folded in floods.items():
        rules = Counter({causes[name].rule: counts[name] for name in folded})
        flood = Cause(
            FLOOD.name, team_id, cluster_id=cluster.pk, severity=HIGH,
            evidence={
                "why": f"{len(folded)} more different events in this minute. They are counted here, and have no alert.",
                "rules": [rule for rule, _ in rules.most_common(_RULES_SHOWN)],
            },
        )  # fmt: skip
        kept[flood.fingerprint] = flood
        counts[flood.fingerprint] = sum(counts[name] for name in folded)
    return kept


@dataclass(frozen=True, slots=True)
class _Tie:
    """What an event is about, and how that is known."""

    how: str = ""
    namespace: str = ""
    workload: str = ""
    digest: str = ""
    repository_id: int | None = None
    is_weak: bool = False  # only the event says so, not what runs


class _Ties:
    """Ties events to what runs: by digest, container, pod, else by the tag. A fixed number of queries."""

    def __init__(self, cluster: Cluster, events: Sequence[SeenEvent]) -> None:
        self.cluster = cluster
        digests = {event.digest for event in events if event.digest}
        self.by_id: dict[str, _Tie] = {}
        self.by_pod: dict[tuple[str, str], _Tie] = {}
        self.by_digest: dict[str, set[_Tie]] = defaultdict(set)
        self.reported: dict[str, str] = {}  # digest of ours: what the reporter calls it
        self.bindings = list(bindings_of(cluster))
        for rows in _containers(cluster, events, digests):  # what lives comes first
            self._add(rows)
        ties = {*self.by_id.values(), *self.by_pod.values(), *(tie for some in self.by_digest.values() for tie in some)}
        self.homes = _homes(digests | {tie.digest for tie in ties})
        self.tagged = _tagged({event.image for event in events if event.image})
        ids = {tie.repository_id for tie in ties} | {repository for repository, _ in self.tagged.values()}
        ids |= {pk for listed in self.homes.values() for pk in listed}
        self.repositories = Repository.objects.select_related("source").in_bulk([pk for pk in ids if pk is not None])

    def _add(self, rows: QuerySet[RunningContainer]) -> None:
        columns = (
            "short_id", "namespace", "pod", "workload_kind", "workload_name", "digest", "repository", "digests",
            "platform__digest",
        )  # fmt: skip
        found = rows.order_by("-pk").values_list(*columns)[:_CONTAINERS_MAX]
        for short, namespace, pod, kind, name, digest, repository, reported, platform in found:
            workload = f"{kind}/{name}" if kind else name
            self.reported.setdefault(digest, reported[0] if reported else "")
            self.by_id.setdefault(short, _Tie("container", namespace, workload, digest, repository))
            self.by_pod.setdefault((namespace, pod), _Tie("pod", namespace, workload, digest, repository))
            self.by_pod.setdefault(("", pod), _Tie("pod", namespace, workload, digest, repository))
            for each in {digest, platform or digest, *reported}:
                self.by_digest[each].add(_Tie("digest", namespace, workload, digest, repository))

    def tie(self, event: SeenEvent) -> _Tie:
        """Return what an event is about."""
        found = self.by_id.get(event.container_id) if event.container_id else None
        if found is None and event.pod:
            found = self.by_pod.get((event.namespace, event.pod))
        if event.digest:
            if found is not None and found.digest == event.digest:
                return _Tie("digest", found.namespace, found.workload, found.digest, found.repository_id)
            ties = self.by_digest.get(event.digest, set())
            here = {tie for tie in ties if event.namespace in {"", tie.namespace}}
            if len(here) == 1:
                return next(iter(here))
            places = {tie.digest: tie.repository_id for tie in here}
            digest = next(iter(places), event.digest)
            workload = found.workload if found is not None else ""
            home = places.get(digest) or min(self.homes.get(event.digest, ()), default=None)
            return _Tie("digest", event.namespace, workload, digest, home, is_weak=not places.get(digest))
        if found is not None:
            return found
        if event.image in self.tagged:
            repository, digest = self.tagged[event.image]
            return _Tie("tag", event.namespace, "", digest, repository, is_weak=True)
        return _Tie("", event.namespace)

    def causes(self, event: SeenEvent) -> list[Cause]:
        """Return the causes of the alerts that an event belongs to: for those who run it, and for the image's team.

        See `alerts.sight`. Whoever sends can invent names: a team that does not run it is told only of what runs here
        and is in its repository.
        """
        tie = self.tie(event)
        binding = binding_for(self.bindings, tie.namespace) if tie.namespace else None
        side = (self.cluster.team_id, *((binding.environment.team_id,) if binding is not None else ()))
        homes = self.homes.get(tie.digest, set())
        repository = self.repositories.get(tie.repository_id) if tie.repository_id is not None else None
        family = (repository.source or repository) if repository is not None else None
        environment_id = binding.environment_id if binding is not None else None
        if family is not None and family.team_id in side:
            return [self._cause(event, tie, family, environment_id)]
        if not any(is_known_home(self.repositories[pk], side) for pk in homes if pk in self.repositories):
            is_tag = tie.how == "tag"  # which names an image that they may not know of
            here = replace(
                tie, how="" if is_tag else tie.how, digest=self.reported.get(tie.digest) or event.digest
            )  # fmt: skip
        else:
            here = tie
        causes = [self._cause(event, here, None, environment_id)]
        if family is not None and not tie.is_weak and family.pk in homes:
            causes.append(self._cause(event, tie, family, environment_id))
        return causes

    def _cause(self, event: SeenEvent, tie: _Tie, family: Repository | None, environment_id: int | None) -> Cause:
        evidence: dict[str, Any] = {"text": event.text, "fields": event.fields, "tied_by": tie.how}
        if tie.how == "tag":
            evidence["why"] = "Tied by the tag, which can name another image than the one that runs: weak."
        elif not tie.how:
            evidence["why"] = "It is tied to no container that is known here."
        if event.at is not None:
            evidence["at"] = event.at.isoformat()
        for name, value in (("image", event.image), ("pod", event.pod), ("target", event.target)):
            if value:
                evidence[name] = value
        return Cause(
            event.kind,
            family.team_id if family is not None else self.cluster.team_id,
            digest=tie.digest or None,
            rule=event.rule[:200],
            cluster_id=self.cluster.pk,
            namespace=tie.namespace,
            workload=tie.workload or event.target[:320],
            environment_id=environment_id,
            severity=event.severity,
            images=1 if tie.digest else 0,
            repositories={family.pk: 1} if family is not None else {},
            evidence=evidence,
        )


def _containers(
    cluster: Cluster, events: Sequence[SeenEvent], digests: Collection[str]
) -> Iterator[QuerySet[RunningContainer]]:
    """Return the containers that the events can be about: those that live, then those that ended a moment ago.

    One look-up for each index. A condition with OR over all of them reads the whole table.
    """
    short_ids = {event.container_id for event in events if event.container_id}
    pods = {event.pod for event in events if event.pod}
    images = set(Image.objects.filter(digest__in=digests).values_list("pk", flat=True))
    images |= set(IndexEntry.objects.filter(child__in=images).values_list("index", flat=True))
    rows = RunningContainer.objects.filter(cluster=cluster)
    live = rows.filter(until=None)
    if short_ids:
        yield live.filter(short_id__in=short_ids)
    if pods:
        yield live.filter(pod__in=pods)
    if images:
        yield live.filter(image__in=images)
    if digests:
        yield live.filter(image=None, digest__in=digests)
    if short_ids or pods:
        ended = rows.filter(until__gt=clock.now() - ENDED_FOR)
        yield ended.filter(Q(short_id__in=short_ids) | Q(pod__in=pods))


def _homes(digests: Iterable[str]) -> dict[str, set[int]]:
    """Return {digest: the families that have the image, or an index with it}."""
    wanted = [digest for digest in digests if digest]
    held = RepositoryImage.objects.filter(removed_at=None)
    family = Coalesce("repository__source", "repository")
    found: dict[str, set[int]] = defaultdict(set)
    for name in ("image__digest", "image__entries__child__digest"):
        for digest, repository in held.filter(**{f"{name}__in": wanted}).values_list(name, family).distinct():
            found[digest].add(repository)
    return dict(found)


def _tagged(images: set[str]) -> dict[str, tuple[int, str]]:
    """Return {repository:tag: (repository of ours, digest that the tag names now)}."""
    repositories = repositories_called(images)
    names = {image: image_name(image) for image in repositories}
    wanted = {(repositories[image], name.tag): image for image, name in names.items() if name is not None}
    rows = Tag.objects.filter(
        repository__in={pk for pk, _ in wanted}, name__in={tag for _, tag in wanted}, image__isnull=False
    ).exclude(image__kind=Image.Kind.ARTIFACT)
    found = {}
    for repository, tag, digest in rows.values_list("repository", "name", "image__digest"):
        if (repository, tag) in wanted:
            found[wanted[repository, tag]] = (repository, digest)
    return found


def tell_untold(now: datetime) -> int:
    """Tell the teams of new alerts that are not critical, together; return how many."""
    rows = Alert.objects.filter(kind__in=KINDS, state=Alert.State.OPEN, told_at=None).select_related("cluster")
    alerts = list(rows.order_by("pk")[:TOLD_MAX])
    tell_teams(alerts, now)
    return len(alerts)


def tidy(now: datetime) -> None:
    """Forget the ids of events of the day before, or beyond IDS_MAX, and close alerts without an event for long."""
    known = RuntimeEvent.objects.filter(event__isnull=True)
    known.filter(received_at__lt=now - KEEP_IDS).delete()
    for cluster_id in known.values_list("cluster", flat=True).distinct():
        oldest_kept = known.filter(cluster=cluster_id).order_by("-pk").values_list("pk", flat=True)[IDS_MAX - 1 :][:1]
        for pk in oldest_kept:
            known.filter(cluster=cluster_id, pk__lt=pk).delete()
    quiet = Alert.objects.filter(kind__in=KINDS, last_at__lt=now - QUIET_FOR).exclude(state=Alert.State.RESOLVED)
    close(list(quiet[:TOLD_MAX]), now, QUIET)
