"""Which break-glass annotations Kubernetes' controllers may carry on from an owner to its Pods. Needs no Django.

An object that a controller creates does not tell who wrote its annotation, nor when. So what counts is what we saw: a
person who may break glass brought this text in for this workload, while admission refused. It opens what that person's
object had, and no other image, until its debt is due; afterwards only if a reviewer called it justified. What a
template had before enforcement, when anybody could add it, opens nothing.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.admission.constants import CONTROLLERS, REVIEW_WITHIN_S

_SAME_S: Final = 0.001  # times of the database have microseconds
_KEPT_MAX: Final = 10_000  # entries of one process
ENDED: Final = 0.0
_KEPT_S: Final = 300.0  # then they are in the snapshot, or do not count any more


def text_hash(text: str) -> str:
    """Return the sha256 of an annotation, by which an entry is stored."""
    return hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()


def key_of(namespace: str, workload: tuple[str, str], sha256: str, name: str) -> str:
    """Return the key of what an entry opens in a cluster: 32 hex digits.

    `sha256` is that of the annotation, `name` that of an image or check: Outcome.opened_names.
    """
    return hashlib.sha256("\0".join((namespace, *workload, sha256, name)).encode("utf-8", "replace")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Term:
    """For how long an entry opens something. All times are seconds since 1970."""

    entered_at: float
    until: float | None  # None: its review said that it was justified. ENDED: that it was not

    @property
    def is_ended(self) -> bool:
        """Return whether only bringing it in again opens it."""
        return self.until == ENDED


def is_entry(row: Mapping[str, Any]) -> bool:
    """Return whether a recorded decision says that a person brought an annotation in while admission refused."""
    return bool(
        row["result"] == "broke_glass"
        and row["mode"] == "enforce"
        and row["user_name"]
        and row["user_name"] not in CONTROLLERS
    )


def is_open(term: Term | None, entered_at: float | None, begins_at: float | None, now: float) -> bool:
    """Return whether an entry opens something now.

    `term` is what the snapshot knows of it, `entered_at` when this process saw it come in, `begins_at` since when the
    namespace is enforced. Coming in again begins nothing anew while the debt is open; after a review it does.
    """
    if begins_at is None:
        return False
    if entered_at is not None and (term is None or (term.is_ended and entered_at > term.entered_at + _SAME_S)):
        term = Term(entered_at, entered_at + REVIEW_WITHIN_S)
    if term is None or (term.until is not None and now >= term.until):
        return False
    return max(term.entered_at, entered_at or 0) >= begins_at


class Entries:
    """Entries of one process that are not in its snapshot yet: the Pods of a Deployment come within milliseconds."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], float] = {}  # (cluster, key) -> when it came in
        self._lock = threading.Lock()

    def add(self, cluster_pk: int, key: str, at: float | None = None) -> None:
        """Keep an entry of `at`, or of now."""
        with self._lock:
            self._kept.pop((cluster_pk, key), None)
            self._kept[cluster_pk, key] = time.time() if at is None else at
            while len(self._kept) > _KEPT_MAX:
                del self._kept[next(iter(self._kept))]

    def entered_at(self, cluster_pk: int, key: str) -> float | None:
        """Return when an entry came in last; None when this process has none."""
        return self._kept.get((cluster_pk, key))

    def forget_before(self, written_at: float) -> None:
        """Forget what a snapshot of this time includes. While the database is away none is written, and all stay."""
        if not self._kept:
            return
        with self._lock:
            for key in [key for key, at in self._kept.items() if at < written_at - _KEPT_S]:
                del self._kept[key]
