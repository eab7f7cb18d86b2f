"""Which break-glass annotations Kubernetes' controllers may carry on from an owner to its Pods. Needs no Django.

An object that a controller creates does not tell who wrote its annotation, nor when. So what counts is what we saw: a
person who may break glass brought this text in for this workload, while admission refused. What a template had before
enforcement, when anybody could add it, opens nothing.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lifecycle.admission.constants import CONTROLLERS

_KEPT_MAX: Final = 10_000  # entries of one process
_KEPT_S: Final = 300.0  # then they are in the snapshot, or do not count any more


def text_hash(text: str) -> str:
    """Return the sha256 of an annotation, by which an entry is stored."""
    return hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()


def key_of(namespace: str, workload: tuple[str, str], sha256: str) -> str:
    """Return the key of an entry in a cluster: 32 hex digits; `sha256` is that of the annotation."""
    return hashlib.sha256("\0".join((namespace, *workload, sha256)).encode("utf-8", "replace")).hexdigest()[:32]


def is_entry(row: Mapping[str, Any]) -> bool:
    """Return whether a recorded decision says that a person brought an annotation in while admission refused."""
    return bool(
        row["result"] == "broke_glass"
        and row["mode"] == "enforce"
        and row["user_name"]
        and row["user_name"] not in CONTROLLERS
    )


class Entries:
    """Entries of one process that are not in its snapshot yet: the Pods of a Deployment come within milliseconds."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], float] = {}
        self._lock = threading.Lock()

    def add(self, cluster_pk: int, key: str, at: float | None = None) -> None:
        """Keep an entry of `at`, or of now."""
        with self._lock:
            self._kept.pop((cluster_pk, key), None)
            self._kept[cluster_pk, key] = time.time() if at is None else at
            while len(self._kept) > _KEPT_MAX:
                del self._kept[next(iter(self._kept))]

    def has(self, cluster_pk: int, keys: Iterable[str]) -> bool:
        """Return whether one of `keys` is an entry in a cluster."""
        return any((cluster_pk, key) in self._kept for key in keys)

    def forget_before(self, written_at: float) -> None:
        """Forget what a snapshot of this time includes. While the database is away none is written, and all stay."""
        if not self._kept:
            return
        with self._lock:
            for key in [key for key, at in self._kept.items() if at < written_at - _KEPT_S]:
                del self._kept[key]
