"""Decisions on their way into the database: collected in memory, then written to files that another process loads.

A server never waits for the disk or the database. What does not fit is dropped, the oldest first, and counted. What a
break-glass opened is never dropped, because a debt would be lost: without room for it, the server does not answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from lifecycle.admission.constants import SHOWN_IMAGES_MAX
from lifecycle.admission.types import Code, ImageResult, Outcome, Review

FOLDER: Final = "spool"
SUFFIX: Final = ".jsonl"
BREAKGLASS: Final = "-breakglass"  # ends the name of a file that is never dropped
SPOOL_MAX_BYTES: Final = 256 * 1024 * 1024  # of all files; then the oldest is dropped
QUEUE_MAX_BYTES: Final = 32 * 1024 * 1024  # of decisions in memory, and as much again of those of break-glass
FILE_MAX_BYTES: Final = 4 * 1024 * 1024  # a file is loaded in one transaction
COUNTS_MAX: Final = 20_000  # different workloads in memory
WORKLOADS_MAX: Final = 5_000  # different workloads of a cluster in a minute; the others are counted together
SHARDS: Final = 256  # rows of those that are counted together in a minute
TOGETHER_MAX: Final = 4_000  # different images of workloads in such a row, of one process and flush
IMAGES_MAX: Final = 100  # different images of a workload in a minute; with more, none is named
PER_MINUTE_MAX: Final = 100  # rows of a (cluster, namespace, workload, code); more are only counted
_FLUSH_S: Final = 1.0
_SLOW_FLUSH_S: Final = 15.0  # when many files wait, because the database is away
_MANY_FILES: Final = 200
_SAME_BREAKGLASS: Final = (
    "cluster", "environment", "namespace", "workload_kind", "workload_name", "operation", "user_name", "breakglass",
)  # fmt: skip


def names_of(outcome: Outcome) -> set[str]:
    """Return the digests of the images that were judged; the reference of one without a digest."""
    return {row.digest or row.reference for row in outcome.images if row.code is not Code.ISOLATION}


def together_key(namespace: str, workload_name: str, image: str) -> str:
    """Return how an image of a workload is named where workloads are counted together. `bypass` has it in SQL too."""
    text = "\n".join((namespace, workload_name, image))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


class _Counted:
    """How many objects of a workload were decided in a minute, and which images they had."""

    __slots__ = ("images", "limit", "number")

    def __init__(self, limit: int) -> None:
        self.number, self.limit = 0, limit
        self.images: set[str] | None = set()  # None: too many

    def add(self, names: set[str]) -> None:
        self.number += 1
        if self.images is not None:
            self.images |= names
            if len(self.images) > self.limit:
                self.images = None

    def as_line(self, key: tuple[Any, ...]) -> dict[str, Any]:
        """Return it as a line of the spool has it."""
        line: dict[str, Any] = {"count": [*key, self.number]}
        return line if self.images is None else line | {"images": sorted(self.images)}


class Recorder:
    """Collects the decisions of one process, and writes them to the spool once a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._rows: deque[bytes] = deque()
        self._size = 0  # bytes of the rows
        self._breakglass: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._breakglass_size = 0
        self._counts: dict[tuple[Any, ...], _Counted] = {}
        self._rates: dict[int, dict[tuple[str, ...], int]] = {}  # cluster -> (namespace, workload, code) -> decisions
        self._minute = 0
        self._dropped = 0
        self._dropped_rows = 0  # of refusals: they let nothing in
        self._lock = threading.Lock()
        self._number = 0
        self._next_flush = 0.0

    def keep(
        self,
        key: str,
        cluster_pk: int,
        review: Review,
        outcome: Outcome,
        *,
        number: int,
        address: str,
        at: float | None = None,
    ) -> bool:
        """Take a decision of now, or of `at`: a row for a refusal or what would be one, a count for all others.

        False: what a break-glass opens cannot be recorded now, so that it must not be opened.
        """
        now = time.time() if at is None else at
        minute = int(now // 60)
        results = (*outcome.refused, *outcome.opened)
        code = results[0].code.value if results else ""

        def row() -> dict[str, Any]:
            return _row(key, cluster_pk, review, outcome, results, number=number, address=address, at=now)

        if outcome.opened and outcome.is_allowed:
            return self._keep_breakglass(row(), outcome.opened_names)
        with self._lock:
            if minute != self._minute:
                self._minute, self._rates = minute, {}
            rates = self._rates.setdefault(cluster_pk, {})
            workload = (review.namespace, *review.workload, code)
            if workload in rates or len(rates) < WORKLOADS_MAX:
                rates[workload] = rates.get(workload, 0) + 1
                if results and rates[workload] <= PER_MINUTE_MAX:
                    self._append(orjson.dumps({"decision": row()}))
                    return True
                count = (cluster_pk, *workload[:-1], minute, code)
                if count in self._counts or len(self._counts) < COUNTS_MAX:
                    self._counts.setdefault(count, _Counted(IMAGES_MAX)).add(names_of(outcome))
                    return True
            self._count_together(cluster_pk, review, outcome, minute, code)
        return True

    def _count_together(self, cluster_pk: int, review: Review, outcome: Outcome, minute: int, code: str) -> None:
        """Count an object with those of other workloads; each of its images stays known, by a hash.

        The kind of the workload of such a row is the number of its shard: no row grows with the flood.
        """
        for image in names_of(outcome) or {""}:
            key = together_key(review.namespace, review.workload[1], image)
            count = (cluster_pk, "", f"{int(key[:8], 16) % SHARDS:02x}", "", minute, code)
            self._counts.setdefault(count, _Counted(TOGETHER_MAX)).add({key})

    def _append(self, text: bytes) -> None:
        self._rows.append(text)
        self._size += len(text)
        while self._size > QUEUE_MAX_BYTES:
            self._size -= len(self._rows.popleft())
            self._dropped_rows += 1

    def _keep_breakglass(self, row: dict[str, Any], names: Sequence[str]) -> bool:
        """Take what a break-glass opened; equal ones of one flush are one row. False when there is no room."""
        row["digests"] = list(names)
        key = (*(row[name] for name in _SAME_BREAKGLASS), *row["digests"])
        with self._lock:
            same = self._breakglass.get(key)
            if same is not None:
                same["times"] += 1
                same["at"] = row["at"]  # when it came in last: as the server itself remembers it
                return True
            row["times"] = 1
            size = _size_of(row)
            if self._breakglass_size + size > QUEUE_MAX_BYTES:
                return False
            self._breakglass_size += size
            self._breakglass[key] = row
        return True

    def flush(self, *, now: float | None = None) -> Path | None:
        """Write what was collected to new files of the spool, and return the first; None when nothing was written."""
        at = time.monotonic() if now is None else now
        if at < self._next_flush:
            return None
        with self._lock:
            rows, counts, dropped, opened = self._rows, self._counts, self._dropped, self._breakglass
            self._rows, self._counts, self._dropped, self._breakglass = deque(), {}, 0, {}
            dropped_rows, self._dropped_rows = self._dropped_rows, 0
            self._size = self._breakglass_size = 0
        # Each line with the number of decisions that are lost without it.
        lines = [(text, 1) for text in rows]
        lines += [(orjson.dumps(each.as_line(key)), each.number) for key, each in counts.items()]
        if dropped:
            lines.append((orjson.dumps({"dropped": dropped}), dropped))
        if dropped_rows:
            lines.append((orjson.dumps({"dropped_rows": dropped_rows}), 0))
        debts = [(orjson.dumps({"decision": row}), row["times"]) for row in opened.values()]
        if not lines and not debts:
            return None
        written: list[Path] = []
        kept = self._write(debts, BREAKGLASS, written)
        self._take_back(list(opened.items())[kept:])
        kept = self._write(lines, "", written)
        with self._lock:
            self._dropped += sum(weight for _, weight in lines[kept:])
        self._next_flush = at + (_SLOW_FLUSH_S if len(self._waiting()) > _MANY_FILES else _FLUSH_S)
        return written[0] if written else None

    def waiting_breakglass(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of break-glass in files that are not loaded yet, also those of another process."""
        for path, _ in self._waiting():
            if path.stem.endswith(BREAKGLASS):
                with contextlib.suppress(OSError, ValueError):
                    yield from (orjson.loads(line)["decision"] for line in path.read_bytes().splitlines())

    def _take_back(self, opened: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        """Keep what a break-glass opened for the next flush, because it could not be written."""
        with self._lock:
            for key, row in opened:
                same = self._breakglass.setdefault(key, row)
                if same is not row:
                    same["times"] += row["times"]
                else:
                    self._breakglass_size += _size_of(row)

    def _write(self, lines: Sequence[tuple[bytes, int]], ending: str, written: list[Path]) -> int:
        """Write lines to files, add these to `written`, and return how many lines were written."""
        first = 0
        while first < len(lines):
            last, size = first, 0
            while last < len(lines) and (last == first or size + len(lines[last][0]) < FILE_MAX_BYTES):
                size += len(lines[last][0]) + 1
                last += 1
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not self._make_room(size):
                    return first
                self._number += 1
                path = self.folder / f"{time.time_ns():020}-{os.getpid()}-{self._number}{ending}{SUFFIX}"
                draft = path.with_suffix(".part")
                draft.write_bytes(b"".join(text + b"\n" for text, _ in lines[first:last]))
                draft.replace(path)
            except (OSError, ValueError):
                return first
            written.append(path)
            first = last
        return first

    def _waiting(self) -> list[tuple[Path, int]]:
        """Return the files that wait to be loaded with their sizes, the oldest first."""
        sizes = []
        with contextlib.suppress(OSError, ValueError):
            for path in sorted(self.folder.glob(f"*{SUFFIX}")):
                with contextlib.suppress(FileNotFoundError):  # it was loaded meanwhile
                    sizes.append((path, path.stat().st_size))
        return sizes

    def _make_room(self, size: int) -> bool:
        """Drop the oldest files until `size` bytes fit, but none with a break-glass; return whether they fit."""
        waiting = self._waiting()
        total = sum(length for _, length in waiting) + size
        for path, length in waiting:
            if total <= SPOOL_MAX_BYTES:
                break
            if path.stem.endswith(BREAKGLASS):
                continue
            with contextlib.suppress(FileNotFoundError):
                with path.open("rb") as stream:
                    lost = sum(1 for _ in stream)
                path.unlink()
                with self._lock:
                    self._dropped += lost
            total -= length
        return total <= SPOOL_MAX_BYTES


def _size_of(row: dict[str, Any]) -> int:
    return 2 * len(orjson.dumps(row))  # its key has the texts again


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
        "judged": sorted(names_of(outcome))[:IMAGES_MAX],
        "breakglass": outcome.breakglass[:1000],
        "snapshot": number,
        "address": address,
        "at": at,
    }
