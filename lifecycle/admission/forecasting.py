"""What enforce would refuse in a cluster: what runs there now, and templates without Pods, judged as its Pods will be.

Also before bindings change: the change is tried in a transaction that is undone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from django.db import connection, transaction

from accounts.models import User
from lifecycle.admission.constants import ANNOTATION, CONTROLLERS
from lifecycle.admission.judging import judge_review
from lifecycle.admission.manifest import EXCLUDED
from lifecycle.admission.queries import snapshot_content
from lifecycle.admission.reviews import images_of_spec
from lifecycle.admission.services import hidden_from, newest_for
from lifecycle.admission.snapshot import ClusterEntry, Snapshot
from lifecycle.admission.types import ImageResult, Named, Outcome, Review
from lifecycle.clusters.access import cluster_for, why_not_manage
from lifecycle.clusters.models import Cluster, Mode
from lifecycle.clusters.services import set_bindings
from lifecycle.clusters.types import BindingWish
from lifecycle.core.reasons import refuse_if
from lifecycle.inventory.models import PodSpec, PodTemplate, Reporter
from lifecycle.inventory.queries import report_state

_CONTROLLER: Final = min(CONTROLLERS)
_WORDS: Final = {"init": "init container", "main": "container", "ephemeral": "ephemeral container", "volume": "volume"}
# Annotations of a pod are in its skeleton, where the agent reports them.
_LIVE: Final = """
SELECT c.namespace, c.workload_kind, c.workload_name, c.kind, c.name, c.reference, count(*), max(spec.id),
       coalesce(max(spec.spec -> 'annotations' ->> %s), ''), count(spec.id)
FROM lifecycle_runningcontainer c
LEFT JOIN lifecycle_podspec spec ON spec.cluster_id = c.cluster_id AND spec.sha256 = c.spec AND c.spec <> ''
WHERE c.cluster_id = %s AND c.until IS NULL AND NOT c.namespace = ANY(%s)
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, 2, 3, 4, 5, 6
"""
_Place = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """A workload that runs now, or has only a template. `images` would be refused when its Pods start again."""

    namespace: str
    workload_kind: str
    workload_name: str
    containers: int  # that run now; 0: nothing but its template is known
    environment: str  # "shop/production"; "" for a namespace without a binding
    images: tuple[ImageResult, ...]
    breakglass: str  # the annotation of its Pods; "" without one, or when it was not reported
    breakglass_counts: bool  # somebody who may break glass brought it in since enforcement began

    @property
    def workload(self) -> str:
        """`Deployment shop/web`."""
        return f"{self.workload_kind} {self.namespace}/{self.workload_name}".strip()


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would happen in mode enforce, with the bindings of now. `unknown` says what nobody can tell."""

    workloads: int  # that were judged
    templates: int  # of these, those without Pods: scaled to zero, suspended, between two runs
    containers: int
    refused: tuple[ForecastRow, ...]
    annotated: tuple[ForecastRow, ...]  # with a break-glass annotation, also those of `refused`
    unknown: tuple[str, ...]

    @property
    def is_quiet(self) -> bool:
        """Return whether nothing would be refused, and no annotation is there."""
        return not self.refused and not self.annotated


@dataclass(slots=True)
class _Running:
    """What is known of a workload."""

    named: list[Named] = field(default_factory=list)
    containers: int = 0
    spec_id: int | None = None
    breakglass: str = ""


def forecast(cluster: Cluster, *, actor: User) -> Forecast:
    """Return what enforce would refuse of what runs in a cluster (environment.manage). Raises NotPermitted.

    A workload is judged by the images that its containers name, from the newest snapshot, as if a Pod of it started
    now. Images that `actor` cannot see look like unknown ones.
    """
    refuse_if(why_not_manage(actor, cluster.team))
    snapshot, entry = newest_for(cluster)
    enforcing = replace(entry, mode=Mode.ENFORCE.value)
    if cluster.mode != Mode.ENFORCE:  # enforcement begins anew, and what came in before it does not count
        enforcing = replace(enforcing, entries={})
    return _judged(cluster, actor, snapshot, enforcing)


def forecast_of_bindings(slug: str, wishes: Sequence[BindingWish], *, actor: User) -> Forecast:
    """Return what would be refused of what is known to run after a change of bindings, and is not refused now.

    Raises what `set_bindings` raises; nothing is changed. A namespace can come to enforce by its own mode, by another
    binding, or by another environment.
    """
    cluster = cluster_for(actor, slug)
    refuse_if(why_not_manage(actor, cluster.team))
    present = _judged(cluster, actor, *newest_for(cluster))
    with transaction.atomic():
        cluster = set_bindings(slug, wishes, actor=actor)
        is_enforcing = cluster.unbound_enforced_at or cluster.bindings.exclude(enforced_at=None).exists()
        # Environments that nothing was bound to are in no snapshot yet.
        snapshot = Snapshot.of(snapshot_content(0)[0]) if is_enforcing else None
        transaction.set_rollback(True)
    if snapshot is None:
        return replace(present, refused=(), annotated=())
    after = _judged(cluster, actor, snapshot, snapshot.clusters[slug])
    known = {(row.workload, image.reference, image.code) for row in present.refused for image in row.images}
    new = tuple(
        row for row in after.refused if {(row.workload, image.reference, image.code) for image in row.images} - known
    )
    names = {row.workload for row in new}
    return replace(after, refused=new, annotated=tuple(row for row in after.annotated if row.workload in names))


def _judged(cluster: Cluster, actor: User, snapshot: Snapshot, enforcing: ClusterEntry) -> Forecast:
    """Return what a cluster with these settings refuses of what is known to run there."""
    running, unspecified = _running(cluster)
    reviews = list(_reviews(running, snapshot, enforcing))
    outcomes = [judge_review(snapshot, enforcing, review) for _, review in reviews]
    hidden = hidden_from(actor, [result for outcome in outcomes for result in outcome.images])
    if hidden:
        snapshot = snapshot.without(hidden)
        outcomes = [judge_review(snapshot, enforcing, review) for _, review in reviews]
    rows = [_row(place, running[place], outcome) for (place, _), outcome in zip(reviews, outcomes, strict=True)]
    return Forecast(
        workloads=len(rows),
        templates=sum(not row.containers for row in rows),
        containers=sum(row.containers for row in rows),
        refused=tuple(row for row in rows if row.images),
        annotated=tuple(row for row in rows if row.breakglass),
        unknown=tuple(_unknown(cluster, unspecified)),
    )


def _running(cluster: Cluster) -> tuple[dict[_Place, _Running], int]:
    """Return {(namespace, kind, name): what runs}, and how many containers were reported without a pod spec."""
    found: dict[_Place, _Running] = defaultdict(_Running)
    unspecified = 0
    with connection.cursor() as cursor:
        cursor.execute(_LIVE, [ANNOTATION, cluster.pk, EXCLUDED])
        for *place, kind, name, reference, count, spec_id, breakglass, specified in cursor.fetchall():
            one = found[place[0], place[1], place[2]]
            one.named.append(Named(f"{_WORDS.get(kind, kind)} {name}", reference))
            one.containers += count
            one.spec_id = max(filter(None, (one.spec_id, spec_id)), default=None)
            one.breakglass = one.breakglass or breakglass
            unspecified += count - specified
    _add_templates(cluster, found)
    return dict(found), unspecified


def _add_templates(cluster: Cluster, found: dict[_Place, _Running]) -> None:
    """Add the controllers that have no Pod now."""
    rows = PodTemplate.objects.filter(cluster=cluster, reporter__ended_at=None).exclude(namespace__in=EXCLUDED)
    columns = ("namespace", "workload_kind", "workload_name", "spec")
    new = {
        (namespace, kind, name): sha256
        for namespace, kind, name, sha256 in rows.order_by("reporter", "pk").values_list(*columns)
        if (namespace, kind, name) not in found
    }
    specs = {row.sha256: row for row in PodSpec.objects.filter(cluster=cluster, sha256__in=set(new.values()))}
    for place, sha256 in sorted(new.items()):
        spec = specs.get(sha256)
        if spec is None or not isinstance(spec.spec, dict):
            continue
        annotations = spec.spec.get("annotations")
        noted = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
        text = noted if isinstance(noted, str) else ""
        found[place] = _Running(list(images_of_spec(spec.spec)), 0, spec.pk, text)


def _reviews(
    running: Mapping[_Place, _Running], snapshot: Snapshot, cluster: ClusterEntry
) -> Iterator[tuple[_Place, Review]]:
    """Yield the review that the next Pod of each workload would ask for, by its controller."""
    specs = _specs(running, snapshot, cluster)
    for place, one in running.items():
        namespace, kind, name = place
        spec = specs.get(one.spec_id or 0)
        metadata = {"annotations": spec.get("annotations", {})} if spec else {}
        yield place, Review(
            namespace=namespace, kind="Pod", name=name, user=_CONTROLLER, has_controller=kind != "Pod",
            images=tuple(one.named), annotation=one.breakglass, workload=(kind, name), owner=(kind, name),
            pod={"spec": spec, "metadata": metadata} if spec else {},
        )  # fmt: skip


def _specs(running: Mapping[_Place, _Running], snapshot: Snapshot, cluster: ClusterEntry) -> dict[int, dict[str, Any]]:
    """Return {id: skeleton}: one of each workload, only where isolation checks are enforced."""
    wanted = set()
    for (namespace, _, _), one in running.items():
        binding = cluster.binding_for(namespace)
        if binding is not None and str(binding.environment_id) in snapshot.isolation and one.spec_id is not None:
            wanted.add(one.spec_id)
    return dict(PodSpec.objects.filter(pk__in=wanted).values_list("pk", "spec")) if wanted else {}


def _row(place: _Place, one: _Running, outcome: Outcome) -> ForecastRow:
    # Each result once: replicas name the same images.
    refused = () if outcome.is_allowed else tuple(dict.fromkeys(outcome.refused))
    return ForecastRow(
        *place, one.containers, outcome.environment, refused, one.breakglass, bool(outcome.breakglass)
    )  # fmt: skip


def _unknown(cluster: Cluster, unspecified: int) -> Sequence[str]:
    state = report_state(cluster)
    told = {
        "never": "Nobody has reported what runs here, so nothing was judged.",
        "silent": "The last report is older than 10 minutes: what started since is not known.",
        "late": "The last report is late.",
        "imported": "What runs is known from an import, as of its time.",
    }
    found = [told[state]] if state in told else []
    if unspecified:
        found.append(
            f"{unspecified} containers were reported without their pod spec: settings and annotations are not known."
        )
    if cluster.kind == Cluster.Kind.KUBERNETES:
        if not Reporter.objects.filter(cluster=cluster, ended_at=None, templates_at__isnull=False).exists():
            found.append(
                "Templates without Pods were not reported: workloads scaled to zero, suspended, or between two runs."
                " Apply the manifest again, so that the agent may list them."
            )
        found.append("Annotations are known of Pods that an agent of this version reported.")
    return found
