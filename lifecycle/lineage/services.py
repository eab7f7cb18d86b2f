"""Find the bases of images and update the closure, set-wise in SQL, for one image or a hundred thousand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from django.db import connection, transaction

from accounts.models import User
from accounts.queries import system_user
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import LineageDeclared
from lifecycle.core import locks
from lifecycle.core.errors import Malformed
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.lineage.kinds import LINEAGE
from lifecycle.lineage.models import Derivation, ProvenBase
from lifecycle.oci.chains import TRAPS
from lifecycle.registry.models import Image

_LOCK: Final = 0x6C696E65  # "line": one writer of edges and closure at a time
_DEPTH_MAX: Final = 500  # levels of the closure; more than the layers of any image

# Selects the images that a new image affects: itself, images whose first layers are its layers, and images that declare
# it, or an index that contains it, as their base, or whose provenance names it. What is said of an index is said of the
# images in it.
_AFFECTED: Final = """
WITH fresh AS MATERIALIZED (
    SELECT i.id, i.digest, i.kind, i.diff_chain_id, i.digest_chain_id, i.layer_count
    FROM lifecycle_image i WHERE i.id = ANY(%(ids)s)
),
named AS (
    SELECT digest FROM fresh
    UNION
    SELECT parent.digest FROM fresh
    JOIN lifecycle_indexentry entry ON entry.child_id = fresh.id
    JOIN lifecycle_image parent ON parent.id = entry.index_id
)
SELECT id FROM fresh WHERE kind = 'manifest'
UNION
SELECT l.image_id FROM fresh JOIN lifecycle_layer l
  ON l.diff_chain_id = fresh.diff_chain_id AND l.diff_chain_id <> '' AND l.position = fresh.layer_count - 1
UNION
SELECT l.image_id FROM fresh JOIN lifecycle_layer l
  ON l.digest_chain_id = fresh.digest_chain_id AND l.digest_chain_id <> '' AND l.position = fresh.layer_count - 1
UNION
SELECT i.id FROM named JOIN lifecycle_image i ON i.base_digest = named.digest AND i.base_digest <> ''
WHERE i.kind = 'manifest'
UNION
SELECT said.image_id FROM named JOIN lifecycle_provenbase said ON said.base_digest = named.digest
UNION
SELECT entry.child_id FROM named JOIN lifecycle_provenbase said ON said.base_digest = named.digest
JOIN lifecycle_indexentry entry ON entry.index_id = said.image_id
UNION
SELECT entry.child_id FROM fresh JOIN lifecycle_indexentry entry ON entry.index_id = fresh.id
"""

# `solid` is the first layer that is not in TRAPS; a shared prefix must include it. `has_diff` is true when at least one
# diff id is known.
_EDGES: Final = """
WITH derived AS MATERIALIZED (
    SELECT d.id, d.layer_count, d.base_digest, d.os, d.architecture, d.variant, f.solid_diff, f.solid_digest, f.has_diff
    FROM lifecycle_image d
    LEFT JOIN LATERAL (
        SELECT min(l.position) FILTER (WHERE l.diff_id <> '' AND l.diff_id <> ALL(%(traps)s)) AS solid_diff,
               min(l.position) FILTER (WHERE l.digest <> '' AND l.digest <> ALL(%(traps)s)) AS solid_digest,
               coalesce(bool_or(l.diff_id <> ''), false) AS has_diff
        FROM lifecycle_layer l WHERE l.image_id = d.id
    ) f ON true
    WHERE d.id = ANY(%(ids)s) AND d.kind = 'manifest'
),
candidates AS MATERIALIZED (
    SELECT d.id AS derived_id, b.id AS base_id, l.position
    FROM derived d
    JOIN lifecycle_layer l ON l.image_id = d.id
    JOIN lifecycle_image b ON b.diff_chain_id = l.diff_chain_id AND b.layer_count = l.position + 1
    WHERE l.diff_chain_id <> '' AND b.kind = 'manifest'
      AND l.position < d.layer_count - 1 AND l.position >= d.solid_diff
    UNION
    SELECT d.id, b.id, l.position
    FROM derived d
    JOIN lifecycle_layer l ON l.image_id = d.id
    JOIN lifecycle_image b ON b.digest_chain_id = l.digest_chain_id AND b.layer_count = l.position + 1
    WHERE l.digest_chain_id <> '' AND b.kind = 'manifest'
      AND l.position < d.layer_count - 1 AND l.position >= d.solid_digest
      AND NOT (d.has_diff
               AND EXISTS (SELECT FROM lifecycle_layer bl WHERE bl.image_id = b.id AND bl.diff_id <> ''))
),
said AS (
    SELECT d.id, d.os, d.architecture, d.variant, p.base_digest
    FROM derived d JOIN lifecycle_provenbase p ON p.image_id = d.id
    UNION
    SELECT d.id, d.os, d.architecture, d.variant, p.base_digest
    FROM derived d
    JOIN lifecycle_indexentry entry ON entry.child_id = d.id
    JOIN lifecycle_provenbase p ON p.image_id = entry.index_id
),
deepest AS (SELECT derived_id, max(position) AS position FROM candidates GROUP BY derived_id),
found AS (
    SELECT derived_id, base_id, 'layers' AS evidence FROM candidates JOIN deepest USING (derived_id, position)
    UNION
    SELECT d.id, b.id, 'annotation'
    FROM derived d JOIN lifecycle_image b ON b.digest = d.base_digest AND b.kind = 'manifest'
    WHERE d.base_digest <> '' AND b.id <> d.id
    UNION
    SELECT d.id, child.id, 'annotation'
    FROM derived d
    JOIN lifecycle_image parent ON parent.digest = d.base_digest AND parent.kind = 'index'
    JOIN lifecycle_indexentry entry ON entry.index_id = parent.id
    JOIN lifecycle_image child ON child.id = entry.child_id AND child.kind = 'manifest'
     AND (child.os, child.architecture, child.variant) = (d.os, d.architecture, d.variant)
    WHERE d.base_digest <> '' AND child.id <> d.id
    UNION
    SELECT s.id, b.id, 'provenance'
    FROM said s JOIN lifecycle_image b ON b.digest = s.base_digest AND b.kind = 'manifest'
    WHERE b.id <> s.id
    UNION
    SELECT s.id, child.id, 'provenance'
    FROM said s
    JOIN lifecycle_image parent ON parent.digest = s.base_digest AND parent.kind = 'index'
    JOIN lifecycle_indexentry entry ON entry.index_id = parent.id
    JOIN lifecycle_image child ON child.id = entry.child_id AND child.kind = 'manifest'
     AND (child.os, child.architecture, child.variant) = (s.os, s.architecture, s.variant)
    WHERE child.id <> s.id
    UNION
    SELECT e.derived_id, e.base_id, 'declared'
    FROM derived d JOIN lifecycle_derivation e ON e.derived_id = d.id
    WHERE 'declared' = ANY(e.evidence)
),
wanted AS MATERIALIZED (
    SELECT derived_id, base_id, array_agg(evidence ORDER BY evidence)::varchar[] AS evidence,
           CASE WHEN bool_or(evidence IN ('layers', 'declared')) THEN 'high'
                WHEN bool_or(evidence = 'provenance') THEN 'medium' ELSE 'low' END AS confidence
    FROM found GROUP BY derived_id, base_id
),
gone AS (
    DELETE FROM lifecycle_derivation e USING derived d
    WHERE e.derived_id = d.id
      AND NOT EXISTS (SELECT FROM wanted w WHERE (w.derived_id, w.base_id) = (e.derived_id, e.base_id))
    RETURNING e.derived_id
),
written AS (
    INSERT INTO lifecycle_derivation AS e (base_id, derived_id, evidence, confidence, created_at)
    SELECT base_id, derived_id, evidence, confidence, clock_timestamp() FROM wanted
    ON CONFLICT (base_id, derived_id) DO UPDATE SET evidence = excluded.evidence, confidence = excluded.confidence
    WHERE (e.evidence, e.confidence) IS DISTINCT FROM (excluded.evidence, excluded.confidence)
    RETURNING e.derived_id
)
SELECT derived_id FROM gone UNION SELECT derived_id FROM written
"""

_BELOW: Final = """
WITH RECURSIVE below(id) AS (
    SELECT unnest(%(ids)s::bigint[])
    UNION
    SELECT e.derived_id FROM below JOIN lifecycle_derivation e ON e.base_id = below.id
)
SELECT id FROM below
"""

# Breadth first, so the first distance found is the shortest. Each pair is stored once, so cycles end too.
_LEVEL: Final = """
INSERT INTO lifecycle_ancestry (ancestor_id, descendant_id, depth)
SELECT DISTINCT e.base_id, a.descendant_id, %(depth)s
FROM unnest(%(ids)s::bigint[]) AS touched(id)
JOIN lifecycle_ancestry a ON a.descendant_id = touched.id AND a.depth = %(depth)s - 1
JOIN lifecycle_derivation e ON e.derived_id = a.ancestor_id
WHERE e.base_id <> a.descendant_id
ON CONFLICT (ancestor_id, descendant_id) DO NOTHING
"""


def derive(image_ids: Collection[int]) -> set[int]:
    """Find the immediate bases of these images and of all images that they affect; return the ids of changed images.

    Only platform manifests get bases. An index among the ids lets images that declare it as their base resolve it. A
    second run changes nothing. Rules: docs/explanation/lineage.md.
    """
    if not image_ids:
        return set()
    with transaction.atomic(), connection.cursor() as cursor:
        locks.wait_for(_LOCK)
        cursor.execute(_AFFECTED, {"ids": sorted(image_ids)})
        affected = sorted(row[0] for row in cursor.fetchall())
        cursor.execute(_EDGES, {"ids": affected, "traps": sorted(TRAPS)})
        changed = {row[0] for row in cursor.fetchall()}
        _recompute_closure(changed)
        if changed:
            events.publish(events.DerivationsChanged(frozenset(changed)))
    return changed


def queue_derivation(image_id: int) -> Job:
    """Queue the search for the bases and derived images of one image."""
    return jobs.queue(LINEAGE, subject_id=image_id, actor=system_user(), dedupe_key=f"image:{image_id}")


def declare_base(derived: Image, base: Image, *, actor: User | None = None) -> Derivation:
    """Record from our own build that `derived` was built on `base`. Other evidence is kept too.

    Raises Malformed when they are the same image, or when one of them is not a platform manifest.
    """
    if derived.pk == base.pk or {derived.kind, base.kind} != {Image.Kind.MANIFEST}:
        raise Malformed("The base and the derived image must be two different platform manifests.", code="not_a_base")
    with transaction.atomic():
        locks.wait_for(_LOCK)
        row, is_new = Derivation.objects.get_or_create(
            base=base,
            derived=derived,
            defaults={"evidence": [Derivation.Evidence.DECLARED.value], "confidence": Derivation.Confidence.HIGH},
        )
        if not is_new and Derivation.Evidence.DECLARED in row.evidence:
            return row
        row.evidence = sorted({*row.evidence, Derivation.Evidence.DECLARED.value})
        row.confidence = Derivation.Confidence.HIGH
        row.save(update_fields=["evidence", "confidence"])
        details = LineageDeclared(base=base.digest)
        audit.record(Action.LINEAGE_DECLARED, actor=actor, subject=derived, image=derived, details=details)
        if is_new:
            _recompute_closure({derived.pk})
    return row


def set_proven_bases(image: Image, digests: Collection[str]) -> None:
    """Store what verified provenances name as the bases of `image`, in place of what they named before.

    Queues the search for its bases when that has changed. Call it inside a transaction.
    """
    before = set(ProvenBase.objects.filter(image=image).values_list("base_digest", flat=True))
    wanted = {digest for digest in digests if digest != image.digest}
    if before == wanted:
        return
    ProvenBase.objects.filter(image=image, base_digest__in=before - wanted).delete()
    ProvenBase.objects.bulk_create(ProvenBase(image=image, base_digest=digest) for digest in sorted(wanted - before))
    queue_derivation(image.pk)


def rebuild_closure() -> None:
    """Rebuild the closure from all derivations. Only for repair, because the services keep the closure up to date."""
    with transaction.atomic(), connection.cursor() as cursor:
        locks.wait_for(_LOCK)
        cursor.execute("DELETE FROM lifecycle_ancestry")
        cursor.execute("SELECT DISTINCT derived_id FROM lifecycle_derivation")
        _recompute_closure({row[0] for row in cursor.fetchall()})


def _recompute_closure(changed: Collection[int]) -> None:
    """Write the ancestors of the images in `changed` and of all their descendants. The caller holds the lock."""
    if not changed:
        return
    with connection.cursor() as cursor:
        cursor.execute(_BELOW, {"ids": sorted(changed)})
        touched = sorted(row[0] for row in cursor.fetchall())
        cursor.execute("DELETE FROM lifecycle_ancestry WHERE descendant_id = ANY(%s)", [touched])
        cursor.execute(
            "INSERT INTO lifecycle_ancestry (ancestor_id, descendant_id, depth)"
            " SELECT base_id, derived_id, 1 FROM lifecycle_derivation WHERE derived_id = ANY(%s)",
            [touched],
        )
        for depth in range(2, _DEPTH_MAX):
            cursor.execute(_LEVEL, {"ids": touched, "depth": depth})
            if not cursor.rowcount:
                break
