"""Audit bench: appending events from many writers, and sealing them."""

from __future__ import annotations

import multiprocessing
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection, transaction

from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.bench.measuring import Unusable, percentile
from lifecycle.bench.types import Figure, Figures
from lifecycle.sealed_log.running import Sealer

_PROCESSES: Final = 4
_CONNECTIONS: Final = 10  # of each process
_RATE: Final = 1000.0  # events/s, all together: what 200 writers do who act every 0.2 s
_BULK: Final = 100_000
_FULL: Final = 10_000  # images from which on everything is measured in full
# Copies of one event, written as the application does, in one statement.
_COPIES: Final = """
INSERT INTO lifecycle_auditevent (at, action, outcome, actor_id, actor_name, token_lookup, address, request_id, team_id,
    subject_kind, subject_id, digest, repository, environment, reason, details, canonical)
SELECT clock_timestamp(), action, outcome, actor_id, actor_name, token_lookup, address, request_id, team_id,
    subject_kind, number %% 500, 'sha256:' || md5((number %% 2000)::text), repository, environment, reason, details,
    canonical
FROM lifecycle_auditevent, generate_series(1, %s) number WHERE id = %s
"""
_LAG: Final = """
SELECT extract(epoch FROM sealed.at - event.at)::float8
FROM lifecycle_sealedentry entry
JOIN lifecycle_auditevent event ON event.id = entry.event_id
CROSS JOIN LATERAL (SELECT at FROM lifecycle_logcheckpoint WHERE size > entry.index ORDER BY size LIMIT 1) sealed
WHERE event.id > %s
"""


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Append at a steady rate and as fast as possible while the sealer runs; then seal a backlog."""
    seconds = 20.0 if images >= _FULL else 2.0
    bulk = _BULK if images >= _FULL else 2_000
    folder = Path(settings.HOME) / "bench-log"
    first = _event()
    key_file = folder / "key.pem"
    with _sealer(folder / "files", key_file):
        note(f"appending {_RATE:.0f} events/s for {seconds:.0f} s, over {_PROCESSES * _CONNECTIONS} connections")
        times_ms = _spread(_open_loop, seconds)
        _await_sealed()
        lags_s = _lags_s(first)
        note("appending as fast as possible")
        sealed_rate = len(_spread(_closed_loop, seconds / 2)) / (seconds / 2)
        _await_sealed()
    _as_owner("ALTER TABLE lifecycle_auditevent DISABLE TRIGGER auditevent_pending")
    plain_rate = len(_spread(_closed_loop, seconds / 2)) / (seconds / 2)
    _as_owner("ALTER TABLE lifecycle_auditevent ENABLE TRIGGER auditevent_pending")
    note(f"sealing {bulk:,} events")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_COPIES, [bulk, first])
    seal_s = _seal_all(folder / "files", key_file, bulk)
    return {
        "append_p50": Figure(percentile(times_ms, 0.5), "ms"),
        "append_p95": Figure(percentile(times_ms, 0.95), "ms", 25.0),
        "appended_per_s": Figure(len(times_ms) / seconds, "events/s", 0.95 * _RATE),
        "sealing_lag_p95": Figure(percentile(lags_s, 0.95), "s", 1.0),
        "sealing_lag_max": Figure(max(lags_s), "s"),
        "closed_loop": Figure(sealed_rate, "events/s"),
        "closed_loop_without_queue": Figure(plain_rate, "events/s"),
        "closed_loop_to_without_queue": Figure(sealed_rate / plain_rate, "x", 0.8),
        "seal_100k" if bulk == _BULK else "seal_2k": Figure(seal_s, "s", 10.0),
    }


def _event() -> int:
    with transaction.atomic():
        details = UserDetails(user="kim")
        event = audit.record(
            Action.SESSION_STARTED, actor=system_user(), reason="A reason as long as most.", details=details
        )
    return event.pk


def _spread(loop: Callable[[float], list[float]], seconds: float) -> list[float]:
    """Run a loop in several processes at once, and return the times in ms that all of them measured."""
    connection.close()  # no process uses the connection of another one
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for _ in range(_PROCESSES):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_report, args=(loop, seconds, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    times_ms = [value for pipe in pipes for value in pipe.recv()]
    for process in processes:
        process.join()
    if not times_ms:
        raise Unusable("No event was written.")
    return times_ms


def _report(loop: Callable[[float], list[float]], seconds: float, pipe: Connection) -> None:
    try:
        pipe.send(loop(seconds))
    finally:
        pipe.close()


def _open_loop(seconds: float) -> list[float]:
    """Append at the rate of this process, whatever each append takes; a time counts from when it was due."""
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    times_ms: list[float] = []

    def write() -> None:
        _append()  # connects
        ready.wait()
        while (moment := due.get()) is not None:
            _append()
            times_ms.append((time.perf_counter() - moment) * 1000)
        connection.close()

    ready = threading.Barrier(_CONNECTIONS + 1)
    threads = [threading.Thread(target=write) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for number in range(int(seconds * _RATE / _PROCESSES)):
        moment = started + number * _PROCESSES / _RATE
        if (pause := moment - time.perf_counter()) > 0:
            time.sleep(pause)
        due.put(moment)
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    return times_ms


def _closed_loop(seconds: float) -> list[float]:
    """Append one event after the other on each connection."""
    times_ms: list[float] = []

    def write() -> None:
        _append()
        ready.wait()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            _append()
            times_ms.append((time.perf_counter() - started) * 1000)
        connection.close()

    ready = threading.Barrier(_CONNECTIONS)
    threads = [threading.Thread(target=write) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times_ms


def _append() -> None:
    with transaction.atomic():
        audit.record(Action.TEAM_CREATED, actor=None, reason="A reason as long as most.")


class _sealer:  # noqa: N801 -- used as a function
    """The sealer process, as in an installation."""

    def __init__(self, folder: Path, key_file: Path) -> None:
        self._words = [sys.executable, "-c", _RUN_SEALER, str(folder), str(key_file)]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._words, cwd=settings.BASE_DIR)

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)


_RUN_SEALER: Final = """
import os, sys, threading, signal
from pathlib import Path
os.environ["DJANGO_SETTINGS_MODULE"] = "config.owner"
import django
django.setup()
from lifecycle.sealed_log.running import Sealer
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
sealer = Sealer(Path(sys.argv[1]), Path(sys.argv[2]))
sealer.reads_anchors = False
sealer.run(stop)
"""


def _await_sealed(timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM lifecycle_auditpending)")
            if not cursor.fetchone()[0]:
                return
        time.sleep(0.2)
    raise Unusable("The sealer did not seal all events.")


def _lags_s(after: int) -> list[float]:
    with connection.cursor() as cursor:
        cursor.execute(_LAG, [after])
        return [row[0] for row in cursor.fetchall()]


def _seal_all(folder: Path, key_file: Path, count: int) -> float:
    """Seal `count` events, without publishing pauses, as the owner; return the seconds it took."""

    def seal() -> float:
        sealer = Sealer(folder, key_file)
        sealer.reads_anchors = False
        started, done = time.perf_counter(), 0
        while sealed := sealer.step():
            done += sealed
        if done < count:
            raise Unusable(f"Only {done} of {count} events were sealed.")
        return time.perf_counter() - started

    seconds: float = _in_owner_thread(seal)
    return seconds


def _as_owner(statement: str) -> None:
    def execute() -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    _in_owner_thread(execute)


def _in_owner_thread(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread with a connection of the owner of the tables, as the sealer process has."""
    outcome: list[Any] = [None, None]
    owner = urlsplit(settings.DATABASE_OWNER_URL)

    def body() -> None:
        connection.settings_dict = {**connection.settings_dict, "USER": owner.username, "PASSWORD": owner.password}
        try:
            outcome[0] = work()
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits
            outcome[1] = error
        finally:
            connection.close()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
