"""What the token endpoint keeps in memory: credentials, grants and repositories, dropped when they change.

A request that finds the last look for changes (`authority.changes`) older than LOOK_EVERY_S looks again; while one
thread looks, others go on for at most LOOK_WITHIN_S. So a taken right stops new tokens within half a second. A request
that would be refused something looks first, so a new right works at once. What a request does not find here, it reads.
Without the database there is no answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.db import InterfaceError, OperationalError, connection

from lifecycle.authority import changes
from lifecycle.authority.changes import Kind
from lifecycle.tokens.rights import FromDatabase, Grant, Place, Target

ENTRIES_MAX: Final = 100_000  # about 60 MB; the oldest go first
LOOK_EVERY_S: Final = 0.05
LOOK_WITHIN_S: Final = 0.5
_CLOCK_SLACK_S: Final = 60.0  # a clock that went back further makes us start anew
T = TypeVar("T")
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class _LastLook:
    began_at: float = -1e9  # by this process' clock, which nobody sets
    at: float = 0.0  # by the database's clock
    generation: int = -1


@dataclass(slots=True)
class _Entry:
    value: Any
    needs: tuple[str, ...]  # kind and key of each change that drops it


class Memory:
    """Entries of one process, for many threads."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX, look_every_s: float = LOOK_EVERY_S) -> None:
        """Begin with nothing; the first look begins the list of changes."""
        self._look_every_s = look_every_s
        self._looking = threading.Lock()  # held by the thread that looks while others go on
        self._last = _LastLook()
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}
        self._needed_by: dict[str, set[Hashable]] = {}
        self._entries_max = entries_max
        self._snapshot = ""
        self._generation = 0  # counts the looks that found a change: what was read before one is not kept after it

    def __len__(self) -> int:
        return len(self._entries)

    def view(self, *, is_fresh: bool = False) -> View:
        """Return what a request of now decides from, after a look for changes unless the last one is young enough.

        With `is_fresh`, always look. Inside a transaction nothing is kept, because it may roll back what it has read.
        Raises DatabaseError.
        """
        if connection.in_atomic_block:
            return View(Memory(), changes.look("").at, 0, is_fresh=True)
        if not is_fresh:
            last = self._last
            age_s = time.monotonic() - last.began_at
            if age_s < self._look_every_s:
                return View(self, last.at + age_s, last.generation, is_fresh=False)
            if age_s < LOOK_WITHIN_S:
                if not self._looking.acquire(blocking=False):  # another thread looks
                    return View(self, last.at + age_s, last.generation, is_fresh=False)
                try:
                    return self._look()
                finally:
                    self._looking.release()
        return self._look()

    def _look(self) -> View:
        began_at, last = time.monotonic(), self._snapshot
        try:
            found = changes.look(last)
        except (OperationalError, InterfaceError):
            self.forget()  # after a restart it may be another database
            connection.close()  # the server may have ended an idle connection; a second failure is real
            last = ""
            found = changes.look(last)
        with self._lock:
            pause_s = found.at - self._last.at
            if not last or pause_s > changes.LOOK_WITHIN_S or pause_s < -_CLOCK_SLACK_S:
                self._clear()  # a first look lists nothing, so what others kept before it may have changed
            elif found.changed:
                self._drop(found.changed)
            self._snapshot = found.snapshot
            self._last = _LastLook(began_at, found.at, self._generation)
            return View(self, found.at, self._generation, is_fresh=True)

    def forget(self) -> None:
        """Drop everything."""
        with self._lock:
            self._clear()
            self._snapshot = ""
            self._last = _LastLook()

    def get(self, key: Hashable) -> Any:
        """Return what is kept under `key`, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def keep(self, key: Hashable, value: Any, needs: Iterable[str], generation: int) -> None:
        """Keep a value that was read in the view of `generation`, unless something has changed since."""
        with self._lock:
            if generation != self._generation:
                return
            self._remove(key)
            while len(self._entries) >= self._entries_max:
                self._remove(next(iter(self._entries)))
            entry = self._entries[key] = _Entry(value, tuple(needs))
            for need in entry.needs:
                self._needed_by.setdefault(need, set()).add(key)

    def _drop(self, changed: Collection[str]) -> None:
        self._generation += 1
        if any(change[:1] == Kind.ALL.value for change in changed):
            self._clear()
            return
        for change in changed:
            for key in list(self._needed_by.get(change, ())):
                self._remove(key)

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        for need in entry.needs if entry is not None else ():
            keys = self._needed_by[need]
            keys.discard(key)
            if not keys:
                del self._needed_by[need]

    def _clear(self) -> None:
        self._generation += 1
        self._entries.clear()
        self._needed_by.clear()


class View:
    """Facts for one request, from memory where they are there."""

    def __init__(self, memory: Memory, now: float, generation: int, *, is_fresh: bool) -> None:
        """Use `memory` as it was at the last look; `is_fresh` if that was the request's own."""
        self._memory, self.now, self._generation, self.is_fresh = memory, now, generation, is_fresh

    def again(self) -> View:
        """Return a view after a look of its own."""
        return self._memory.view(is_fresh=True)

    def grants(self, user_ids: Sequence[int]) -> Mapping[int, Sequence[Grant]]:
        """Return the grants of each account that started; some may have ended."""
        return self._many(
            "grants", user_ids, FromDatabase().grants, lambda pk: (f"{Kind.GRANTS}{pk}", Kind.GRANTS.value)
        )

    def places(self, names: Collection[str]) -> Mapping[str, Place]:
        """Return the repositories of the managed registry that exist, by name."""
        return self._many("place", names, FromDatabase().places, lambda name: (f"{Kind.REPOSITORY}{name}",))

    def targets(self) -> Mapping[str, Sequence[Target]]:
        """Return the environments by prefix."""
        return self.one("targets", FromDatabase().targets)

    def team_ids(self) -> frozenset[int]:
        """Return the ids of all teams."""
        return self.one("teams", FromDatabase().team_ids)

    def one(self, key: Hashable, read: Callable[[], T], needs: Callable[[T], Iterable[str]] = lambda value: ()) -> T:
        """Return what is kept under `key`; else what `read` returns, which is then kept unless it is None."""
        kept: T | None = self._memory.get(key)
        if kept is not None:
            return kept
        value = read()
        if value is not None:
            self._memory.keep(key, value, needs(value), self._generation)
        return value

    def _many(
        self,
        what: str,
        keys: Collection[Any],
        read: Callable[[list[Any]], Mapping[Any, Any]],
        needs: Callable[[Any], tuple[str, ...]],
    ) -> dict[Any, Any]:
        """Return {key: value} of the keys that exist, with one query for all that are not kept."""
        found, missing = {}, []
        for key in keys:
            kept = self._memory.get((what, key))
            if kept is None:
                missing.append(key)
            elif kept is not _ABSENT:
                found[key] = kept
        if missing:
            read_now = read(missing)
            found.update(read_now)
            for key in missing:
                self._memory.keep((what, key), read_now.get(key, _ABSENT), needs(key), self._generation)
        return found
