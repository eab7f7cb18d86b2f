"""Decisions on their way into the database: collected in memory, then written to files that another process loads.

A server never waits for the disk or the database. What does not fit is dropped, the oldest first, and counted.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import orjson

from lifecycle.admission.constants import SHOWN_IMAGES_MAX
from lifecycle.admission.types import ImageResult, Outcome, Review

FOLDER: Final = "spool"
SUFFIX: Final = ".jsonl"
SPOOL_MAX_BYTES: Final = 256 * 1024 * 1024  # of all files; then the oldest is dropped
QUEUE_MAX: Final = 20_000  # decisions in memory
COUNTS_MAX: Final = 20_000  # different workloads in memory
PER_MINUTE_MAX: Final = 100  # rows of a (cluster, workload, code); more are only counted
_FLUSH_S: Final = 1.0
_SLOW_FLUSH_S: Final = 15.0  # when many files wait, because the database is away
_MANY_FILES: Final = 200


class Recorder:
    """Collects the decisions of one process, and writes them to the spool once a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._rows: deque[dict[str, Any]] = deque(maxlen=QUEUE_MAX)
        self._counts: dict[tuple[Any, ...], int] = {}
        self._rates: dict[tuple[Any, ...], int] = {}
        self._minute = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._number = 0
        self._next_flush = 0.0

    def keep(self, key: str, cluster_pk: int, review: Review, outcome: Outcome, *, number: int, address: str) -> None:
        """Take a decision: a row for a refusal or what would be one, a count for all others."""
        now = time.time()
        minute = int(now // 60)
        results = (*outcome.refused, *outcome.opened)
        code = results[0].code.value if results else ""
        count = (cluster_pk, review.namespace, *review.workload, minute, code)
        with self._lock:
            if minute != self._minute:
                self._minute, self._rates = minute, {}
            if results:
                rate = (cluster_pk, *review.workload, code)
                self._rates[rate] = self._rates.get(rate, 0) + 1
                if self._rates[rate] <= PER_MINUTE_MAX:
                    if len(self._rows) == QUEUE_MAX:
                        self._dropped += 1
                    self._rows.append(
                        _row(key, cluster_pk, review, outcome, results, number=number, address=address, at=now)
                    )
                    return
            if count in self._counts or len(self._counts) < COUNTS_MAX:
                self._counts[count] = self._counts.get(count, 0) + 1
            else:
                self._dropped += 1

    def flush(self, *, now: float | None = None) -> Path | None:
        """Write what was collected to a new file of the spool, and return it; None when nothing was written."""
        at = time.monotonic() if now is None else now
        if at < self._next_flush:
            return None
        with self._lock:
            rows, counts, dropped = list(self._rows), self._counts, self._dropped
            if not rows and not counts:
                return None
            self._rows.clear()
            self._counts, self._dropped = {}, 0
        lines = [orjson.dumps({"decision": row}) for row in rows]
        lines += [orjson.dumps({"count": [*key, number]}) for key, number in counts.items()]
        if dropped:
            lines.append(orjson.dumps({"dropped": dropped}))
        content = b"\n".join(lines) + b"\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            waiting = self._make_room(len(content))
            self._next_flush = at + (_SLOW_FLUSH_S if waiting > _MANY_FILES else _FLUSH_S)
            self._number += 1
            path = self.folder / f"{time.time_ns():020}-{os.getpid()}-{self._number}{SUFFIX}"
            draft = path.with_suffix(".part")
            draft.write_bytes(content)
            draft.replace(path)
        except OSError:
            with self._lock:
                self._dropped += len(rows) + sum(counts.values())
            return None
        return path

    def _make_room(self, size: int) -> int:
        """Drop the oldest files until `size` bytes fit; return how many files wait."""
        sizes = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):  # it was loaded meanwhile
                sizes.append((path, path.stat().st_size))
        total = sum(length for _, length in sizes) + size
        for path, length in sizes:
            if total <= SPOOL_MAX_BYTES:
                break
            with contextlib.suppress(FileNotFoundError):
                with path.open("rb") as stream:
                    lost = sum(1 for _ in stream)
                path.unlink()
                with self._lock:
                    self._dropped += lost
            total -= length
        return len(sizes)


def _row(
    key: str,
    cluster_pk: int,
    review: Review,
    outcome: Outcome,
    results: tuple[ImageResult, ...],
    *,
    number: int,
    address: str,
    at: float,
) -> dict[str, Any]:
    kind, name = review.workload
    return {
        "key": key,
        "cluster": cluster_pk,
        "environment": outcome.environment_id,
        "namespace": review.namespace,
        "workload_kind": kind,
        "workload_name": name,
        "object_kind": review.kind,
        "object_name": review.name,
        "operation": review.operation,
        "user_name": review.user,
        "mode": outcome.mode,
        "result": "refused" if not outcome.is_allowed else "broke_glass" if outcome.opened else "would_refuse",
        "code": results[0].code.value,
        "images": [result.as_json() for result in results[:SHOWN_IMAGES_MAX]],
        "breakglass": outcome.breakglass[:1000],
        "snapshot": number,
        "address": address,
        "at": at,
    }
