"""What runs in an enforcing cluster although admission was never asked about it: no hook, or one that does not see it.

A false alarm is worse than a late one. Nothing is said of what cannot be known: pods that may be older than
enforcement, than the bindings or than their agent; namespaces that our hooks leave out; and while decisions wait to be
loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection
from django.db.models import Max, Min

from lifecycle.admission.constants import REFERENCE_MAX
from lifecycle.admission.manifest import EXCLUDED
from lifecycle.admission.models import AdmissionLoad
from lifecycle.alerts.models import Alert
from lifecycle.clusters.models import Cluster, NamespaceBinding
from lifecycle.clusters.queries import binding_for
from lifecycle.inventory.models import RunningImage

KIND: Final = "drift.bypass"
WHY: Final = (
    "It started after enforcement began, and no decision of admission about this image of its workload is recorded."
    " Look whether the webhooks are still there, whether they see this namespace, and whether the node had another"
    " image under the same tag."
)
SLACK: Final = timedelta(minutes=10)  # between a change and what it does: snapshots, agents, clocks
ASKED_BEFORE: Final = timedelta(days=7)  # a pod can wait so long for a node between its decision and its start
YOUNG: Final = timedelta(days=20)  # decisions are kept for 30 days: older containers cannot be judged anew
WRITER_GONE: Final = timedelta(days=7)  # a machine that does not load decisions for so long is not there any more

Key = tuple[int, str, str, str, str]  # cluster, namespace, kind and name of the workload, digest

# The workload of a pod and that of a decision come from the same owner, with few exceptions: at its creation, a bare
# Pod can be known by `generateName` only, and a controller by what owns it. The image is what was judged: under its own
# digest, its platform's or its index's; the reference of one that has no digest. A decision that names no images is one
# about all of its workload: earlier versions noted none. Beyond 5,000 workloads of a cluster in a minute, others are
# counted together, each image of a workload by its hash (`recording.together_key`): a flood hides nothing.
_FOUND: Final = """
SELECT DISTINCT c.cluster_id, c.namespace, c.workload_kind, c.workload_name, c.digest
FROM lifecycle_runningcontainer c
JOIN lifecycle_reporter reporter ON reporter.id = c.reporter_id AND NOT reporter.is_import
JOIN unnest(%(clusters)s::bigint[], %(namespaces)s::text[], %(begins)s::timestamptz[])
    AS bound(cluster_id, namespace, begins_at) ON bound.cluster_id = c.cluster_id AND bound.namespace = c.namespace
CROSS JOIN LATERAL (SELECT c.workload_name::text AS own, regexp_replace(c.workload_name, '-[^-]*$', '') AS stem) named
CROSS JOIN LATERAL (SELECT CASE
    WHEN c.workload_kind = 'Pod' THEN ARRAY[named.own, named.stem || '-']
    WHEN c.workload_kind IN ('ReplicaSet', 'Job') THEN ARRAY[named.own, named.stem]
    ELSE ARRAY[named.own] END AS names) wanted
CROSS JOIN LATERAL (SELECT array_agg(each.name)::varchar[] AS names FROM (
    SELECT c.digest UNION ALL SELECT unnest(c.digests) UNION ALL SELECT left(c.reference, %(reference_max)s)
    UNION ALL SELECT digest FROM lifecycle_image WHERE id IN (c.image_id, c.platform_id)
    UNION ALL SELECT above.digest FROM lifecycle_indexentry entry
        JOIN lifecycle_image above ON above.id = entry.index_id WHERE entry.child_id IN (c.image_id, c.platform_id)
    UNION ALL SELECT below.digest FROM lifecycle_indexentry entry
        JOIN lifecycle_image below ON below.id = entry.child_id
        WHERE entry.index_id = c.image_id AND c.platform_id IS NULL) each(name)) image
CROSS JOIN LATERAL (SELECT array_agg(left(encode(sha256(convert_to(
        c.namespace || E'\n' || own.name || E'\n' || one.name, 'UTF8')), 'hex'), 32)::varchar) AS keys
    FROM unnest(wanted.names) own(name), unnest(image.names) one(name)) hashed
WHERE c.until IS NULL AND c.digest <> ''
  AND ((c.since > greatest(bound.begins_at, reporter.first_at) + %(slack)s
      AND c.since BETWEEN %(oldest)s AND %(newest)s
      AND NOT EXISTS (SELECT FROM lifecycle_runningcontainer former
          WHERE former.reporter_id = c.reporter_id AND former.key = c.key AND former.until IS NOT NULL))
    OR format('%%s|%%s|%%s|%%s|%%s', c.cluster_id, c.namespace, c.workload_kind, c.workload_name, c.digest)
      = ANY(%(alarmed)s::text[]))
  AND NOT EXISTS (SELECT FROM lifecycle_admissioncount counted
      WHERE counted.cluster_id = c.cluster_id AND counted.namespace = c.namespace
        AND counted.workload_name = ANY(wanted.names) AND counted.code = ''
        AND (counted.judged IS NULL OR counted.judged && image.names)
        AND counted.minute BETWEEN c.since - %(before)s AND c.since + %(slack)s)
  AND NOT EXISTS (SELECT FROM lifecycle_admissioncount together
      WHERE together.cluster_id = c.cluster_id AND together.namespace = '' AND together.workload_name = ''
        AND together.code = '' AND together.judged && hashed.keys
        AND together.minute BETWEEN c.since - %(before)s AND c.since + %(slack)s)
  AND NOT EXISTS (SELECT FROM lifecycle_admissiondecision decided
      WHERE decided.cluster_id = c.cluster_id AND decided.namespace = c.namespace
        AND decided.workload_name = ANY(wanted.names) AND decided.result <> 'refused'
        AND (decided.judged IS NULL OR decided.judged && image.names)
        AND decided.at BETWEEN c.since - %(before)s AND c.since + %(slack)s)
"""


def found(
    rows: Sequence[RunningImage], bindings: dict[int, list[NamespaceBinding]], now: datetime
) -> set[Key]:  # fmt: skip
    """Return what runs without a recorded decision. What is alarmed stays so until it ends or a decision comes."""
    begins = _begins(rows, bindings)
    if not begins:
        return set()
    keys = {key_of(row) for row in rows if (row.cluster_id, row.namespace) in begins}
    alarmed = Alert.objects.filter(kind=KIND, cluster__in={cluster for cluster, _ in begins})
    live = {
        (cluster, namespace, *_split(workload), digest or "")
        for cluster, namespace, workload, digest in alarmed.exclude(state=Alert.State.RESOLVED).values_list(
            "cluster", "namespace", "workload", "digest"
        )
    }
    loaded = AdmissionLoad.objects.filter(loaded_until__gt=now - WRITER_GONE).aggregate(
        until=Min("loaded_until"), lost_at=Max("lost_at")
    )
    if loaded["until"] is None:
        return live & keys
    places = list(begins)
    starts = [max(begins[place], loaded["lost_at"] or begins[place]) for place in places]
    values: dict[str, Any] = {
        "alarmed": ["|".join(map(str, key)) for key in live & keys],
        "clusters": [cluster for cluster, _ in places],
        "namespaces": [namespace for _, namespace in places],
        "begins": starts,
        "slack": SLACK,
        "before": ASKED_BEFORE,
        "reference_max": REFERENCE_MAX,
        "oldest": now - YOUNG,
        "newest": min(now, loaded["until"]) - SLACK,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FOUND, values)
        return {(row[0], row[1], row[2], row[3], row[4]) for row in cursor.fetchall()}


def key_of(row: RunningImage) -> Key:
    """Return what a running image is called here."""
    return (row.cluster_id, row.namespace, row.workload_kind, row.workload_name, row.digest)


def _split(workload: str) -> tuple[str, str]:
    kind, is_given, name = workload.partition("/")
    return (kind, name) if is_given else ("", kind)


def _begins(
    rows: Sequence[RunningImage], bindings: dict[int, list[NamespaceBinding]]
) -> dict[tuple[int, str], datetime]:
    """Return {(cluster, namespace): since when admission has enforced there}, where that is known."""
    begins = {}
    for cluster_id, namespace in {(row.cluster_id, row.namespace) for row in rows}:
        binding = binding_for(bindings[cluster_id], namespace)
        if binding is None or namespace in EXCLUDED:
            continue
        cluster = binding.cluster
        if cluster.kind == Cluster.Kind.KUBERNETES and binding.enforced_at is not None:
            begins[cluster_id, namespace] = max(binding.enforced_at, cluster.bound_at)
    return begins
