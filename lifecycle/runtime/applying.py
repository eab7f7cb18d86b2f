"""Apply reports: from what a reporter sees to intervals of containers, and from these to those of images.

The rows that live are read once and compared in memory, and only differences are written. A report of 10,000 pods that
changes nothing writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from django.db import connection
from django.db.models import Count, DateTimeField, Q, Value
from django.db.models.functions import Greatest

from lifecycle.clusters.models import Cluster
from lifecycle.clusters.queries import binding_for, bindings_of
from lifecycle.core import clock
from lifecycle.inventory.models import (
    ClusterNamespace,
    PodSpec,
    PodTemplate,
    Reporter,
    RunningContainer,
    RunningImage,
    RuntimeReport,
)
from lifecycle.runtime.falco import short_id
from lifecycle.runtime.formats import read_format
from lifecycle.runtime.reports import TERMINATED, inflate, read_content, read_json, storable
from lifecycle.runtime.resolving import Wanted, resolve
from lifecycle.runtime.types import REFUSED_MAX, Content, SeenContainer, Sent

_BATCH: Final = 2000
_IN_PLACE: Final = (
    "pod", "node", "arch", "state", "container_id", "started_at", "spec", "reference", "digests", "digest", "image_id",
    "platform_id", "repository_id",
)  # fmt: skip
_COLUMNS: Final = ("pk", "key", "since", *_IN_PLACE)
_WRITTEN: Final = [name.removesuffix("_id") if name != "container_id" else name for name in _IN_PLACE] + ["short_id"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a report changed."""

    containers: int
    started: int
    ended: int
    changed: int
    refused: int


def apply(report: RuntimeReport) -> Applied:
    """Apply one report in the caller's transaction, in which its reporter is locked. Running twice changes nothing."""
    content = _content(report)
    reporter = report.reporter
    # A clock that was set back, or a forged time, ends nothing before it began.
    at = max(report.observed_at, reporter.applied_at or report.observed_at)
    applied = _apply_containers(reporter, content, at, is_full=report.kind == Sent.FULL)
    _store_specs(report, content)
    _store_namespaces(report, content)
    if content.templates is not None:
        _store_templates(reporter, content.templates)
        reporter.templates_at = report.received_at
    refresh_images(reporter.cluster, at)
    report.applied_at, report.body = report.received_at, None
    report.containers, report.refused_count = len(content.containers), len(content.refused)
    report.refused = [
        {"pointer": storable(each.pointer), "why": storable(each.why)} for each in content.refused[:REFUSED_MAX]
    ]
    report.save(update_fields=["applied_at", "body", "containers", "refused_count", "refused"])
    reporter.applied_at = at
    reporter.save(update_fields=["applied_at", "templates_at"])
    return applied


def apply_to_history(report: RuntimeReport, ended_at: datetime) -> Applied:
    """Apply a report that waited when its cluster was deleted, and end again then what runs after it.

    In the caller's transaction, in which the cluster is locked: nobody else sees anything run there meanwhile.
    """
    for model in (RunningContainer, RunningImage):
        model.objects.filter(cluster=report.cluster_id, until__gte=ended_at).update(until=None)
    images = RunningImage.objects.filter(cluster=report.cluster_id, until=None)
    environments = dict(images.exclude(environment=None).values_list("namespace", "environment"))
    applied = apply(report)
    for namespace, environment_id in environments.items():  # its bindings are gone
        images.filter(namespace=namespace).update(environment=environment_id)
    for model in (RunningContainer, RunningImage):
        model.objects.filter(cluster=report.cluster_id, until=None).update(until=_not_before_since(ended_at))
    return applied


def give_up(report: RuntimeReport, reporter: Reporter) -> None:
    """Leave out a report that cannot be stored, and ask its reporter for a full one."""
    report.applied_at, report.body, report.refused_count = report.received_at, None, 1
    report.refused = [{"pointer": "", "why": "The report cannot be stored. Send a full one."}]
    report.save(update_fields=["applied_at", "body", "refused_count", "refused"])
    Reporter.objects.filter(pk=reporter.pk).update(boot="")


def end_all(reporter: Reporter) -> None:
    """End what a reporter saw last, at its last report, and let it start anew."""
    RunningContainer.objects.filter(reporter=reporter, until=None).update(until=_not_before_since(reporter.seen_at))
    refresh_images(reporter.cluster, reporter.seen_at)
    reporter.ended_at = clock.now()
    reporter.save(update_fields=["ended_at"])


def _content(report: RuntimeReport) -> Content:
    body = bytes(report.body or b"")
    document = read_json(inflate(body) if report.is_gzip else body)
    return read_format(document, report.format) if report.format else read_content(document)


class _Comparison:
    """What a reporter sees now, against its live rows."""

    def __init__(self, reporter: Reporter, content: Content, at: datetime) -> None:
        self.reporter, self.containers, self.at = reporter, content.containers, at
        rows = RunningContainer.objects.filter(reporter=reporter, until=None).values_list(*_COLUMNS)
        self.live: dict[str, tuple[Any, ...]] = {row[1]: row for row in rows}
        self.resolved = resolve({_wanted(each) for each in content.containers})
        self.new: list[RunningContainer] = []
        self.changed: list[RunningContainer] = []
        self.ended: list[int] = []

    def compare(self, each: SeenContainer) -> None:
        """Note what is new or different about a container that is not over."""
        before = self.live.get(each.key)
        if before is None:
            self.new.append(self._row(each, since=min(each.started_at or self.at, self.at)))
            return
        pk, _, since, *old = before
        found = self.resolved[_wanted(each)]
        same = (
            each.pod, each.node, each.arch, each.state, each.container_id, each.started_at, each.spec, each.image,
            list(each.digests), found.digest, found.image_id, found.platform_id, found.repository_id,
        )  # fmt: skip
        if same == tuple(
            old
        ):  # in the order of _IN_PLACE; most containers of a report, so that no row is made for them
            return
        was = dict(zip(_IN_PLACE, old, strict=True))
        digests = list(each.digests)
        if digests and was["digests"] and digests != was["digests"]:
            self.ended.append(pk)  # another image under the same name
            self.new.append(self._row(each, since=self.at))
            return
        row = self._row(each, since=since)
        if not digests and was["digests"]:  # a status that is away for a moment
            for name in ("digests", "digest", "image_id", "platform_id"):
                setattr(row, name, was[name])
        if any(getattr(row, name) != was[name] for name in _IN_PLACE):
            row.pk = pk
            self.changed.append(row)

    def add_finished(self) -> None:
        """Add containers that began and ended between two reports, such as those of short jobs, once."""
        over = {
            each.key: each
            for each in self.containers
            if each.state == TERMINATED
            and each.digests
            and each.key not in self.live
            and each.started_at is not None
            and each.started_at < self.at
        }
        known = RunningContainer.objects.filter(reporter=self.reporter, key__in=over).values_list("key", flat=True)
        for key in over.keys() - set(known):
            self.new.append(self._row(over[key], since=over[key].started_at or self.at, until=self.at))

    def _row(self, each: SeenContainer, *, since: datetime, until: datetime | None = None) -> RunningContainer:
        found = self.resolved[_wanted(each)]
        return RunningContainer(
            cluster_id=self.reporter.cluster_id, reporter=self.reporter, key=each.key, namespace=each.namespace,
            workload_kind=each.workload_kind, workload_name=each.workload_name, pod=each.pod, node=each.node,
            arch=each.arch, kind=each.kind, name=each.name, reference=each.image, digests=list(each.digests),
            digest=found.digest, image_id=found.image_id, platform_id=found.platform_id,
            repository_id=found.repository_id, container_id=each.container_id, short_id=short_id(each.container_id),
            state=each.state, started_at=each.started_at, spec=each.spec, since=since, until=until,
        )  # fmt: skip


def _wanted(each: SeenContainer) -> Wanted:
    return Wanted(each.digests, each.image, each.arch)


def _apply_containers(reporter: Reporter, content: Content, at: datetime, *, is_full: bool) -> Applied:
    found = _Comparison(reporter, content, at)
    # Whatever lives under the key of a container that is over ends.
    there = {each.key for each in content.containers if each.state != TERMINATED}
    over = {each.key for each in content.containers if each.state == TERMINATED} | set(content.gone)
    for each in content.containers:
        if each.state != TERMINATED:
            found.compare(each)
    found.ended += [row[0] for key, row in found.live.items() if key not in there and (is_full or key in over)]
    found.add_finished()
    RunningContainer.objects.filter(pk__in=found.ended).update(until=_not_before_since(at))
    RunningContainer.objects.bulk_update(found.changed, _WRITTEN, batch_size=_BATCH)
    _insert(found.new)
    return Applied(len(content.containers), len(found.new), len(found.ended), len(found.changed), len(content.refused))


# Ten times as fast as bulk_create: a new reporter of a big cluster brings ten thousand rows.
_INSERTED: Final = {
    "cluster_id": "bigint", "reporter_id": "bigint", "key": "text", "namespace": "text", "workload_kind": "text",
    "workload_name": "text", "pod": "text", "node": "text", "arch": "text", "kind": "text", "name": "text",
    "reference": "text", "digests": "text[]", "digest": "text", "image_id": "bigint", "platform_id": "bigint",
    "repository_id": "bigint", "container_id": "text", "short_id": "text", "state": "text", "started_at": "timestamptz",
    "spec": "text", "since": "timestamptz", "until": "timestamptz",
}  # fmt: skip
_INSERT: Final = f"""
INSERT INTO lifecycle_runningcontainer ({", ".join(f'"{name}"' for name in _INSERTED)})
SELECT {", ".join(f'"{name}"' for name in _INSERTED)}
FROM json_to_recordset(%s) AS given({", ".join(f'"{name}" {kind}' for name, kind in _INSERTED.items())})
"""  # noqa: S608 -- only constants of this module are inserted


def _insert(rows: list[RunningContainer]) -> None:
    if rows:
        documents = [{name: getattr(row, name) for name in _INSERTED} for row in rows]
        with connection.cursor() as cursor:
            cursor.execute(_INSERT, [orjson.dumps(documents).decode()])


def _not_before_since(at: datetime) -> Greatest:
    """Return the end of an interval: another reporter of the cluster can be ahead."""
    return Greatest("since", Value(at, output_field=DateTimeField()))


def _store_specs(report: RuntimeReport, content: Content) -> None:
    known = set(
        PodSpec.objects.filter(cluster=report.cluster_id, sha256__in=content.specs).values_list("sha256", flat=True)
    )
    rows = [
        PodSpec(cluster_id=report.cluster_id, sha256=sha, spec=spec, seen_at=report.received_at)
        for sha, spec in content.specs.items()
        if sha not in known
    ]
    PodSpec.objects.bulk_create(rows, batch_size=_BATCH, ignore_conflicts=True)


def _store_templates(reporter: Reporter, templates: Mapping[tuple[str, str, str], str]) -> None:
    """Replace the templates without Pods that a reporter named; writes only what differs."""
    rows = PodTemplate.objects.filter(reporter=reporter)
    columns = ("pk", "namespace", "workload_kind", "workload_name", "spec")
    known = {(*place, spec): pk for pk, *place, spec in rows.values_list(*columns)}
    wanted = {(*place, spec) for place, spec in templates.items()}
    rows.filter(pk__in=[pk for key, pk in known.items() if key not in wanted]).delete()
    new = [
        PodTemplate(
            cluster_id=reporter.cluster_id, reporter=reporter, namespace=namespace, workload_kind=kind,
            workload_name=name, spec=spec,
        )
        for namespace, kind, name, spec in sorted(wanted - known.keys())
    ]  # fmt: skip
    PodTemplate.objects.bulk_create(new, batch_size=_BATCH)


def _store_namespaces(report: RuntimeReport, content: Content) -> None:
    rows = {
        each["name"]: ClusterNamespace(cluster_id=report.cluster_id, seen_at=report.received_at, **each)
        for each in content.namespaces
    }
    ClusterNamespace.objects.bulk_create(
        rows.values(),
        update_conflicts=True,
        unique_fields=["cluster", "name"],
        update_fields=["network_policies", "pss", "seen_at"],
        batch_size=_BATCH,
    )


_Key = tuple[str, str, str, str, str, int | None]
_MOVING: Final = ("image", "repository", "environment", "containers")
_GROUP: Final = ("namespace", "workload_kind", "workload_name", "reference", "digest", "platform")


def refresh_images(cluster: Cluster, at: datetime) -> int:
    """Bring the intervals of images in line with the live containers of a cluster; return how many rows changed.

    An image counts in a workload while a container runs it, or has it: one that crashes and waits is there too.
    """
    counted = (
        RunningContainer.objects.filter(Q(state="running") | ~Q(digests=[]), cluster=cluster, until=None)
        .order_by()
        .values_list(*_GROUP, "image", "repository")
        .annotate(count=Count("pk"))
    )
    now: dict[_Key, tuple[int | None, int | None, int]] = {}
    for *key, image_id, repository_id, count in counted:
        more = now.get(tuple(key), (None, None, 0))
        now[tuple(key)] = (image_id, repository_id, more[2] + count)
    rows = {
        (row.namespace, row.workload_kind, row.workload_name, row.reference, row.digest, row.platform_id): row
        for row in RunningImage.objects.filter(cluster=cluster, until=None)
    }
    environments = environments_in(cluster, {key[0] for key in now})
    over = [row for key, row in rows.items() if key not in now]
    changed, wanted = [], []
    for key, (image_id, repository_id, count) in now.items():
        environment_id = environments[key[0]]
        row = rows.get(key)
        if row is None:
            row = RunningImage(
                cluster=cluster, image_id=image_id, repository_id=repository_id, containers=count, since=at
            )
            row.environment_id = environment_id
            row.namespace, row.workload_kind, row.workload_name, row.reference, row.digest, row.platform_id = key
            wanted.append(row)
        elif (row.image_id, row.repository_id, row.environment_id, row.containers) != (
            image_id, repository_id, environment_id, count,
        ):  # fmt: skip
            row.image_id, row.repository_id = image_id, repository_id
            row.environment_id, row.containers = environment_id, count
            changed.append(row)
    new, ended, taken = _start_with_containers(cluster, wanted, over)
    RunningImage.objects.filter(pk__in=[row.pk for row in ended]).update(until=_not_before_since(at))
    RunningImage.objects.bulk_update(changed, _MOVING, batch_size=_BATCH)
    RunningImage.objects.bulk_update(taken, [*_MOVING, "digest", "platform"], batch_size=_BATCH)
    RunningImage.objects.bulk_create(new, batch_size=_BATCH)
    return len(ended) + len(changed) + len(taken) + len(new)


def _start_with_containers(
    cluster: Cluster, new: list[RunningImage], ended: list[RunningImage]
) -> tuple[list[RunningImage], list[RunningImage], list[RunningImage]]:
    """Return (new, ended, taken over). New intervals begin with their first container, which can be before the report.

    An image that was unknown and is known now, under the digest that its containers report all along, is the same
    interval: it is taken over, with what is known of it.
    """
    if not new:
        return new, ended, []
    names = ("namespace", "workload_kind", "workload_name", "reference")
    firsts: dict[tuple[Any, ...], datetime] = {}
    reported: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    live = RunningContainer.objects.filter(cluster=cluster, until=None, namespace__in={row.namespace for row in new})
    for *place, digest, platform_id, digests, since in live.values_list(
        *names, "digest", "platform", "digests", "since"
    ):
        key = (*place, digest, platform_id)
        firsts[key] = min(since, firsts.get(key, since))
        reported[key].update(digests)
    unknown: dict[tuple[Any, ...], list[RunningImage]] = defaultdict(list)
    for row in ended:
        if row.platform_id is None:
            unknown[tuple(getattr(row, name) for name in names)].append(row)
    begun, taken = [], []
    for row in new:
        place = tuple(getattr(row, name) for name in names)
        key = (*place, row.digest, row.platform_id)
        row.since = min(row.since, firsts.get(key, row.since))
        former = next((each for each in unknown[place] if each.digest in {*reported[key], row.digest, ""}), None)
        if former is None or (former.image_id is not None and former.image_id != row.image_id):
            begun.append(row)
            continue
        unknown[place].remove(former)
        row.pk, row.since = former.pk, former.since
        taken.append(row)
    left = {row.pk for row in taken}
    return begun, [row for row in ended if row.pk not in left], taken


def environments_in(cluster: Cluster, namespaces: Iterable[str]) -> dict[str, int | None]:
    """Return {namespace: id of the environment that it is bound to}."""
    bindings = list(bindings_of(cluster))
    found = {}
    for namespace in namespaces:
        binding = binding_for(bindings, namespace)
        found[namespace] = binding.environment_id if binding is not None else None
    return found
