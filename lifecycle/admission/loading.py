"""Loads decisions from the files of the spool into the database, each file once, and removes old rows."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import orjson
import structlog
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.db.models import F

from lifecycle.admission.carrying import is_entry, text_hash
from lifecycle.admission.constants import CONTROLLERS, JUDGED_MAX, REVIEW_WITHIN_S, TEXT_MAX
from lifecycle.admission.models import (
    AdmissionBatch,
    AdmissionCount,
    AdmissionDebt,
    AdmissionDecision,
    AdmissionEntry,
    AdmissionEpoch,
    AdmissionLoad,
)
from lifecycle.admission.recording import BREAKGLASS, FOLDER, SUFFIX
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.environments.models import Environment

log = structlog.get_logger(__name__)

_FILES_AT_ONCE: Final = 50
_REVIEW_WITHIN: Final = timedelta(seconds=REVIEW_WITHIN_S)
_DECISIONS_KEPT: Final = timedelta(days=90)
_COUNTS_KEPT: Final = timedelta(days=30)
_BATCHES_KEPT: Final = timedelta(days=1)
_BAD: Final = ".bad"
_SETTLED: Final = timedelta(seconds=20)  # a server writes a decision to a file so late (recording._SLOW_FLUSH_S)
_NOTED_EVERY: Final = timedelta(seconds=10)
_BAD_FILES_MAX: Final = 100  # files with lines that were put aside; then the oldest is deleted
_BAD_BYTES_MAX: Final = 1024 * 1024  # of one such file
_USERS_MAX: Final = 1000  # of a debt; who may break glass is listed, so there are few
_COUNT_MAX: Final = 2**31 - 1
_UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
# Sorted, so that the loaders of two machines take the rows in one order and never wait for each other in a circle.
_COUNTS: Final = """
INSERT INTO lifecycle_admissioncount
    (cluster_id, namespace, workload_kind, workload_name, minute, code, count, judged)
SELECT given.cluster, given.namespace, given.kind, given.name, given.minute, given.code, given.number,
       string_to_array(given.judged, E'\n')
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::bigint[], %s::text[])
    AS given(cluster, namespace, kind, name, minute, code, number, judged)
ON CONFLICT (cluster_id, minute, namespace, workload_kind, workload_name, code)
DO UPDATE SET count = LEAST(lifecycle_admissioncount.count::bigint + EXCLUDED.count, %s),
              judged = CASE WHEN lifecycle_admissioncount.judged IS NULL OR EXCLUDED.judged IS NULL THEN NULL
                  ELSE ARRAY(SELECT DISTINCT unnest(lifecycle_admissioncount.judged || EXCLUDED.judged)) END
"""


def load_spool(folder: Path, *, for_s: float | None = None) -> int:
    """Load the files of the spool, those of break-glass first, then the oldest, and delete them; return how many.

    Lines that cannot be loaded are put aside, and the rest of their file is loaded. After `for_s` seconds it begins
    no other file.
    """
    started, count, listed_at = time.monotonic(), 0, clock.now()
    paths = sorted((folder / FOLDER).glob(f"*{SUFFIX}"), key=lambda path: (BREAKGLASS not in path.name, path.name))
    for path in paths[:_FILES_AT_ONCE]:
        if for_s is not None and time.monotonic() - started > for_s:
            break
        try:
            _load_file(path)
            path.unlink(missing_ok=True)
        except (OperationalError, InterfaceError):  # the database is away: the file waits
            raise
        except (OSError, IntegrityError) as error:  # the disk, or a cluster that is just deleted: it is tried again
            log.warning("decisions_not_read", file=path.name, error=str(error)[:200])
            continue
        except Exception:
            log.exception("decisions_not_loaded", file=path.name)
            _put_aside(path, path.read_bytes()[:_BAD_BYTES_MAX])
            path.unlink(missing_ok=True)
            _note_lost(folder)
        count += 1
    if count == len(paths):
        _note_loaded(folder, listed_at - _SETTLED)
    return count


def _name_of(folder: Path) -> str:
    return hashlib.sha256(f"{socket.gethostname()}:{folder.resolve()}".encode()).hexdigest()


def _note_loaded(folder: Path, until: datetime) -> None:
    """Note that all decisions of this spool until a time are loaded, at most each 10 seconds."""
    row, is_new = AdmissionLoad.objects.get_or_create(name=_name_of(folder), defaults={"loaded_until": until})
    if not is_new and row.loaded_until <= until - _NOTED_EVERY:
        AdmissionLoad.objects.filter(pk=row.pk).update(loaded_until=until)


def _note_lost(folder: Path) -> None:
    now = clock.now()
    AdmissionLoad.objects.update_or_create(
        name=_name_of(folder), defaults={"lost_at": now}, create_defaults={"lost_at": now, "loaded_until": now}
    )


def _load_file(path: Path) -> None:
    """Load a file in one transaction; puts aside what cannot be loaded."""
    bad: list[bytes] = []
    with transaction.atomic():
        _, is_new = AdmissionBatch.objects.get_or_create(name=path.name[:100])
        if not is_new:
            return  # it was loaded, and the process ended before it deleted the file
        clusters = set(Cluster.objects.values_list("pk", flat=True))
        environments = set(Environment.objects.values_list("pk", flat=True))
        decisions: list[_Taken] = []
        counts: dict[tuple[Any, ...], tuple[int, frozenset[str] | None]] = {}
        for text in path.read_bytes().splitlines():
            try:
                line = _without_nul(orjson.loads(text)) if text.strip() else {}
                if "decision" in line and line["decision"]["cluster"] in clusters:
                    decisions.append(_Taken.of(line["decision"], environments, text))
                if "count" in line and line["count"][0] in clusters:
                    *key, number = _count(line["count"])
                    before, judged = counts.get(tuple(key), (0, frozenset[str]()))
                    counts[tuple(key)] = before + number, _together(judged, _names(line.get("images")))
                if "dropped_rows" in line:
                    log.warning("refusals_dropped", count=line["dropped_rows"])
                if "dropped" in line:
                    log.warning("decisions_dropped", count=line["dropped"])
                    _note_lost(path.parent.parent)
            except _UNREADABLE:
                bad.append(text)
        bad += _keep(decisions)
        _add_counts(counts)
        if bad:
            log.error("decisions_put_aside", file=path.name, lines=len(bad))
            _note_lost(path.parent.parent)
            _put_aside(path, b"\n".join(bad)[:_BAD_BYTES_MAX] + b"\n")


def _without_nul(value: Any) -> Any:
    """Return a value of JSON without NUL in its texts: PostgreSQL stores none, and no name that we know has one."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value


def _put_aside(path: Path, content: bytes) -> None:
    """Write what cannot be loaded beside the file, for a person to look at."""
    path.with_suffix(_BAD).write_bytes(content)
    for old in sorted(path.parent.glob(f"*{_BAD}"))[:-_BAD_FILES_MAX]:
        old.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A decision of a file."""

    decision: AdmissionDecision
    digests: tuple[str, ...]  # of all its images, also of those that its row does not show; a reference without one
    times: int
    text: bytes

    @classmethod
    def of(cls, row: Mapping[str, Any], environments: set[int], text: bytes) -> Self:
        """Read the row of a decision; raises one of _UNREADABLE."""
        shown = [image["digest"] or image["reference"] for image in row["images"]]
        digests = sorted({str(digest) for digest in row.get("digests") or shown})
        return cls(_decision(row, environments), tuple(digests), int(row.get("times", 1)), text)


def _keep(taken: Sequence[_Taken]) -> list[bytes]:
    """Store decisions and their debts; return the lines that the database refuses."""
    try:
        with transaction.atomic():
            _store(taken)
    except (OperationalError, InterfaceError):
        raise
    except DatabaseError:
        if len(taken) == 1:
            return [taken[0].text]
        half = len(taken) // 2  # few are bad: halves find them with few statements
        return _keep(taken[:half]) + _keep(taken[half:])
    return []


def _store(taken: Sequence[_Taken]) -> None:
    AdmissionDecision.objects.bulk_create([row.decision for row in taken], ignore_conflicts=True)
    for row in taken:
        if row.decision.result == AdmissionDecision.Result.BROKE_GLASS:
            _note_entry(row.decision, _owe(row))


def _decision(row: Mapping[str, Any], environments: set[int]) -> AdmissionDecision:
    plain = (
        "key", "namespace", "workload_kind", "workload_name", "object_kind", "object_name", "operation", "user_name",
        "mode", "result", "code", "images", "breakglass", "address",
    )  # fmt: skip
    return AdmissionDecision(
        cluster_id=row["cluster"],
        environment_id=row["environment"] if row["environment"] in environments else None,
        snapshot_number=row["snapshot"],
        judged=sorted(_names(row["judged"]) or ()) if "judged" in row else None,
        at=datetime.fromtimestamp(row["at"], UTC),
        **{name: row[name] for name in plain},
    )


def _count(row: Sequence[Any]) -> tuple[int, str, str, str, datetime, str, int]:
    cluster, namespace, kind, name, minute, code, number = row
    texts = [text[:TEXT_MAX] for text in (namespace, kind, name)]
    return cluster, texts[0], texts[1], texts[2], datetime.fromtimestamp(minute * 60, UTC), code[:30], int(number)


def _names(given: Any) -> frozenset[str] | None:
    """Return the images of a line; None where it names none: an earlier version wrote it, or there were too many."""
    return frozenset(str(each)[:JUDGED_MAX] for each in given) if isinstance(given, list) else None


def _together(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    return one | other if one is not None and other is not None else None


def _add_counts(counts: Mapping[tuple[Any, ...], tuple[int, frozenset[str] | None]]) -> None:
    if not counts:
        return
    rows = [
        (*key, min(number, _COUNT_MAX), "\n".join(sorted(judged)) if judged is not None else None)
        for key, (number, judged) in sorted(counts.items(), key=lambda item: item[0])
    ]
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, [*map(list, zip(*rows, strict=True)), _COUNT_MAX])


def _owe(taken: _Taken) -> AdmissionDebt:
    """Open the debt of a break-glass, or count more objects of it; return it.

    After a review, whoever brings the annotation in again owes again. What controllers carry on counts for the debt
    that opened it, unless its review said that it was not justified.
    """
    decision, digests, times = taken.decision, list(taken.digests), taken.times
    parts = [str(decision.cluster_id), decision.namespace, decision.workload_kind, decision.workload_name, *digests]
    fingerprint = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    entering = [decision.user_name] if decision.user_name and decision.user_name not in CONTROLLERS else []
    debts = AdmissionDebt.objects.select_for_update().filter(fingerprint=fingerprint)
    if decision.user_name in CONTROLLERS:
        opening = AdmissionDebt.objects.select_for_update().filter(
            cluster=decision.cluster_id, namespace=decision.namespace, workload_kind=decision.workload_kind,
            workload_name=decision.workload_name, digests__contains=digests,
        )  # fmt: skip
        last = debts.order_by("-pk").first() or opening.order_by("-pk").first()
        if last is not None and last.outcome != AdmissionDebt.Outcome.UNJUSTIFIED:
            _count_more(last, decision, times)
            return last
    made, is_new = debts.get_or_create(
        fingerprint=fingerprint,
        reviewed_at=None,
        defaults={
            "cluster_id": decision.cluster_id, "namespace": decision.namespace,
            "workload_kind": decision.workload_kind, "workload_name": decision.workload_name, "digests": digests,
            "decision_key": decision.key, "reason": decision.breakglass, "user_names": entering,
            "user_name": "".join(entering),
            "count": times, "opened_at": decision.at, "last_at": decision.at, "due_at": decision.at + _REVIEW_WITHIN,
        },
    )  # fmt: skip
    if not is_new:
        _count_more(made, decision, times, entering)
    return made


def _note_entry(decision: AdmissionDecision, debt: AdmissionDebt) -> None:
    """Note who brought an annotation in, so that controllers may carry it on, and renew the snapshot."""
    values = {name: getattr(decision, name) for name in ("result", "mode", "user_name")}
    if not is_entry(values):
        return
    row, is_new = AdmissionEntry.objects.get_or_create(
        cluster_id=decision.cluster_id, text_sha256=text_hash(decision.breakglass), fingerprint=debt.fingerprint,
        defaults={
            "namespace": decision.namespace, "workload_kind": decision.workload_kind,
            "workload_name": decision.workload_name, "debt": debt, "user_name": decision.user_name,
            "entered_at": decision.at,
        },
    )  # fmt: skip
    if not is_new:
        row.debt, row.user_name, row.entered_at = debt, decision.user_name, max(row.entered_at, decision.at)
        row.save(update_fields=["debt", "user_name", "entered_at"])
    AdmissionEpoch.objects.create()


def _count_more(debt: AdmissionDebt, decision: AdmissionDecision, times: int, entering: Sequence[str] = ()) -> None:
    names = list(dict.fromkeys([*debt.user_names, *entering]))[:_USERS_MAX]
    AdmissionDebt.objects.filter(pk=debt.pk).update(
        count=F("count") + times,
        last_at=decision.at,
        user_name=debt.user_name or "".join(names[:1]),
        user_names=names,
    )


def prune() -> None:
    """Delete decisions, counts and names of files that are older than they are kept."""
    now = clock.now()
    AdmissionDecision.objects.filter(at__lt=now - _DECISIONS_KEPT).delete()
    AdmissionCount.objects.filter(minute__lt=now - _COUNTS_KEPT).delete()
    AdmissionBatch.objects.filter(at__lt=now - _BATCHES_KEPT).delete()
