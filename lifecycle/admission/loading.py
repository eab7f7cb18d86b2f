"""Loads decisions from the files of the spool into the database, each file once, and removes old rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from django.db import DataError, IntegrityError, transaction
from django.db.models import F

from lifecycle.admission.models import (
    AdmissionBatch,
    AdmissionCount,
    AdmissionDebt,
    AdmissionDecision,
)
from lifecycle.admission.recording import FOLDER, SUFFIX
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.environments.models import Environment

log = structlog.get_logger(__name__)

_FILES_AT_ONCE: Final = 50
_REVIEW_WITHIN: Final = timedelta(hours=24)
_DECISIONS_KEPT: Final = timedelta(days=90)
_COUNTS_KEPT: Final = timedelta(days=30)
_BATCHES_KEPT: Final = timedelta(days=1)
_BAD: Final = ".bad"


def load_spool(folder: Path) -> int:
    """Load the oldest files of the spool and delete them; return how many. A file that cannot be read is put aside."""
    paths = sorted((folder / FOLDER).glob(f"*{SUFFIX}"))[:_FILES_AT_ONCE]
    for path in paths:
        try:
            _load_file(path)
        except (DataError, IntegrityError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            log.warning("decisions_not_loaded", file=path.name, error=str(error)[:200])
            path.replace(path.with_suffix(_BAD))
            continue
        path.unlink(missing_ok=True)
    return len(paths)


@transaction.atomic
def _load_file(path: Path) -> None:
    _, is_new = AdmissionBatch.objects.get_or_create(name=path.name[:100])
    if not is_new:
        return  # it was loaded, and the process ended before it deleted the file
    lines = [orjson.loads(line) for line in path.read_bytes().replace(b"\\u0000", b"").splitlines() if line]
    clusters = set(Cluster.objects.values_list("pk", flat=True))
    environments = set(Environment.objects.values_list("pk", flat=True))
    rows = [line["decision"] for line in lines if "decision" in line and line["decision"]["cluster"] in clusters]
    decisions = [_decision(row, environments) for row in rows]
    AdmissionDecision.objects.bulk_create(decisions, ignore_conflicts=True)
    for decision in decisions:
        if decision.result == AdmissionDecision.Result.BROKE_GLASS:
            _owe(decision)
    for line in lines:
        if "count" in line and line["count"][0] in clusters:
            _count(line["count"])
        if "dropped" in line:
            log.warning("decisions_dropped", count=line["dropped"])


def _decision(row: Mapping[str, Any], environments: set[int]) -> AdmissionDecision:
    plain = (
        "key", "namespace", "workload_kind", "workload_name", "object_kind", "object_name", "operation", "user_name",
        "mode", "result", "code", "images", "breakglass", "address",
    )  # fmt: skip
    return AdmissionDecision(
        cluster_id=row["cluster"],
        environment_id=row["environment"] if row["environment"] in environments else None,
        snapshot_number=row["snapshot"],
        at=datetime.fromtimestamp(row["at"], UTC),
        **{name: row[name] for name in plain},
    )


def _count(key: Sequence[Any]) -> None:
    cluster, namespace, kind, name, minute, code, number = key
    row, is_new = AdmissionCount.objects.get_or_create(
        cluster_id=cluster, minute=datetime.fromtimestamp(minute * 60, UTC), namespace=namespace, workload_kind=kind,
        workload_name=name, code=code, defaults={"count": number},
    )  # fmt: skip
    if not is_new:
        AdmissionCount.objects.filter(pk=row.pk).update(count=F("count") + number)


def _owe(decision: AdmissionDecision) -> None:
    """Open the debt of a break-glass, or count one more object of it."""
    digests = sorted({image["digest"] or image["reference"] for image in decision.images})
    parts = [str(decision.cluster_id), decision.namespace, decision.workload_kind, decision.workload_name, *digests]
    fingerprint = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    made, is_new = AdmissionDebt.objects.get_or_create(
        fingerprint=fingerprint,
        defaults={
            "cluster_id": decision.cluster_id, "namespace": decision.namespace,
            "workload_kind": decision.workload_kind, "workload_name": decision.workload_name, "digests": digests,
            "decision_key": decision.key, "reason": decision.breakglass, "user_name": decision.user_name,
            "opened_at": decision.at, "last_at": decision.at, "due_at": decision.at + _REVIEW_WITHIN,
        },
    )  # fmt: skip
    if not is_new:
        AdmissionDebt.objects.filter(pk=made.pk).update(count=F("count") + 1, last_at=decision.at)


def prune() -> None:
    """Delete decisions, counts and names of files that are older than they are kept."""
    now = clock.now()
    AdmissionDecision.objects.filter(at__lt=now - _DECISIONS_KEPT).delete()
    AdmissionCount.objects.filter(minute__lt=now - _COUNTS_KEPT).delete()
    AdmissionBatch.objects.filter(at__lt=now - _BATCHES_KEPT).delete()
