"""Uses of break-glass in clusters: one alert each, until another person has reviewed it.

Who reviews it can say that it was not justified. Then it is an alert until what it opened does not run any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from django.db import connection
from django.db.models import Q, QuerySet

from accounts.models import User
from lifecycle.admission.models import AdmissionDebt
from lifecycle.alerts.models import Alert
from lifecycle.alerts.types import Cause
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.clusters.queries import binding_for, bindings_of, clusters_visible_to
from lifecycle.core.severities import CRITICAL, HIGH
from lifecycle.registry.models import Image, IndexEntry

KIND: Final = "breakglass"
WHY_NOT_RESOLVED: Final = (
    "It closes when another person reviews the break-glass, on the page of the cluster. If that was not justified, when"
    " what it opened does not run any more."
)
# The names of workloads are as in `bypass`: a bare Pod can be known by `generateName`, a controller by what owns it.
_STILL_RUNS: Final = """
SELECT debt.id FROM lifecycle_admissiondebt debt
WHERE debt.outcome = 'unjustified'
  AND NOT EXISTS (SELECT FROM lifecycle_admissiondebt later
      WHERE later.fingerprint = debt.fingerprint AND later.id > debt.id)
  AND EXISTS (SELECT FROM lifecycle_runningimage r
      WHERE r.cluster_id = debt.cluster_id AND r.namespace = debt.namespace AND r.until IS NULL
        AND (debt.workload_name = r.workload_name
          OR (r.workload_kind = 'Pod' AND debt.workload_name = regexp_replace(r.workload_name, '-[^-]*$', '') || '-')
          OR (r.workload_kind IN ('ReplicaSet', 'Job')
              AND debt.workload_name = regexp_replace(r.workload_name, '-[^-]*$', '')))
        AND (r.digest = ANY(debt.digests) OR r.reference = ANY(debt.digests)
          OR EXISTS (SELECT FROM unnest(debt.digests) name WHERE name LIKE '%: % with %')
          OR EXISTS (SELECT FROM lifecycle_image image WHERE image.digest = ANY(debt.digests)
              AND (image.id IN (r.image_id, r.platform_id) OR EXISTS (SELECT FROM lifecycle_indexentry entry
                  WHERE entry.index_id = image.id AND entry.child_id IN (r.image_id, r.platform_id))))))
"""
_REASON_SHOWN: Final = 500  # characters
_DIGESTS_SHOWN: Final = 20


def causes(now: datetime) -> Iterator[Cause]:
    """Yield the cause of each debt that is open, or that was not justified and still runs.

    The team is that of the cluster, because its approvers review.
    """
    bindings: dict[int, list[NamespaceBinding]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_STILL_RUNS)
        running = [pk for (pk,) in cursor.fetchall()]
    rows = AdmissionDebt.objects.filter(Q(reviewed_at=None) | Q(pk__in=running)).select_related("cluster")
    for debt in rows.order_by("pk"):
        if debt.cluster_id not in bindings:
            bindings[debt.cluster_id] = list(bindings_of(debt.cluster))
        bound = binding_for(bindings[debt.cluster_id], debt.namespace)
        environment = bound.environment if bound is not None else None
        yield Cause(
            KIND,
            debt.cluster.team_id,
            digest=next((name for name in debt.digests if name.startswith("sha256:")), None),
            rule=f"break-glass {debt.pk}",
            cluster_id=debt.cluster_id,
            namespace=debt.namespace,
            workload=f"{debt.workload_kind}/{debt.workload_name}",
            environment_id=environment.pk if environment is not None else None,
            severity=CRITICAL if environment is not None and environment.is_production else HIGH,
            images=len(debt.digests),
            evidence={
                "why": f"{debt.user_name or 'Somebody'} broke the glass{_state(debt, now)}:"
                f" {debt.reason[:_REASON_SHOWN]}",
                "environment": f"{environment.team.slug}/{environment.slug}" if environment is not None else "",
                "digests": debt.digests[:_DIGESTS_SHOWN],
            },
        )


def _state(debt: AdmissionDebt, now: datetime) -> str:
    if debt.outcome == AdmissionDebt.Outcome.UNJUSTIFIED:
        return ", which was not justified, and what it opened still runs. New Pods are refused"
    if debt.due_at <= now:
        return ", and the review is overdue. New Pods are refused until another person calls it justified"
    return ", and another person has to review it"


def to_repeat(now: datetime) -> list[Alert]:
    """Return the live alerts whose debt is overdue for review, and which were told only once.

    Also those that somebody acknowledged: the debt stays until it is reviewed.
    """
    overdue = AdmissionDebt.objects.filter(reviewed_at=None, due_at__lte=now).values_list("pk", flat=True)
    rows = Alert.objects.filter(
        kind=KIND, reminded_at=None, told_at__isnull=False, rule__in=[f"break-glass {pk}" for pk in overdue]
    ).exclude(state=Alert.State.RESOLVED)
    return list(rows.select_related("cluster").order_by("pk"))


def is_owed() -> bool:
    """Return whether a use of break-glass waits for its review."""
    return AdmissionDebt.objects.filter(reviewed_at=None).exists()


def open_debts_of(image: Image, actor: User) -> QuerySet[AdmissionDebt]:
    """Return the unreviewed uses of break-glass for an image, its platforms or its index, in clusters that one sees."""
    around = Image.objects.filter(
        Q(pk=image.pk)
        | Q(pk__in=IndexEntry.objects.filter(index=image).values("child"))
        | Q(pk__in=IndexEntry.objects.filter(child=image).values("index"))
    )
    rows = AdmissionDebt.objects.filter(
        reviewed_at=None, cluster__in=clusters_visible_to(actor).order_by().values("pk")
    )
    return rows.filter(digests__overlap=list(around.values_list("digest", flat=True))).select_related("cluster")
