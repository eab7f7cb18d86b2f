"""How many bodies are read at once: slow senders leave threads for other clusters, and for the API server itself.

The server cannot end the reading of a body that does not come, so that each such body holds a thread until its sender
gives up. Who knows a secret, and API servers print it, could hold them all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SLOW_S: Final = 1.0  # a body of 8 MiB comes in less, and API servers wait three seconds for an answer
_SLOW_MAX: Final = 4  # of an address that are read for longer than SLOW_S
_WAIT_S: Final = 0.2  # for a place; a burst of an API server goes on within it


class Bodies:
    """The bodies that are being read in one process with `threads` threads."""

    def __init__(self, threads: int) -> None:
        self._all_max = max(3 * threads // 4, 1)
        self._cluster_max = max(threads // 2, 1)
        self._address_max = max(threads // 4, 1)
        self._waiting_max = max(threads // 8, 1)
        self._waiting = 0
        self._reading: dict[object, tuple[str, str, float]] = {}  # cluster, address, since
        self._changed = threading.Condition()

    @contextmanager
    def place(self, cluster: str, address: str) -> Iterator[bool]:
        """Hold a place while a body is read; gives False when there is none, and the body must not be read."""
        mark = object()
        with self._changed:
            is_free = self._has_room(cluster, address) or self._waits(cluster, address)
            if is_free:
                self._reading[mark] = (cluster, address, time.monotonic())
        try:
            yield is_free
        finally:
            if is_free:
                with self._changed:
                    del self._reading[mark]
                    self._changed.notify_all()

    def _has_room(self, cluster: str, address: str) -> bool:
        if len(self._reading) < min(self._address_max, _SLOW_MAX):
            return True
        of_cluster = [row for row in self._reading.values() if row[0] == cluster]
        of_address = sum(1 for row in of_cluster if row[1] == address)
        return (
            len(self._reading) < self._all_max
            and len(of_cluster) < self._cluster_max
            and of_address < self._address_max
            and self._slow(cluster, address) < _SLOW_MAX
        )

    def _slow(self, cluster: str, address: str) -> int:
        before = time.monotonic() - SLOW_S
        return sum(1 for row in self._reading.values() if row[:2] == (cluster, address) and row[2] < before)

    def _waits(self, cluster: str, address: str) -> bool:
        """Wait a moment for a place, unless many wait already or what is read is slow."""
        if self._waiting >= self._waiting_max or self._slow(cluster, address) >= _SLOW_MAX:
            return False
        self._waiting += 1
        try:
            return self._changed.wait_for(lambda: self._has_room(cluster, address), _WAIT_S)
        finally:
            self._waiting -= 1
