"""A worker that is connected but receives nothing ends itself, so that its supervisor starts a new one.

After a lost connection, Celery over Redis can consume nothing and still answer every ping (celery #8030, #9054). We saw
this once in a hundred restarts of Redis, with the main thread waiting for an answer forever. The watchdog therefore
checks the work: jobs that wait too long, and wake-ups in Redis that an idle worker does not take.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Q
from django.db.models.functions import Now

from lifecycle.jobs import broker
from lifecycle.jobs.kinds import kinds_in
from lifecycle.jobs.models import Job
from lifecycle.jobs.running import worker_name

log = structlog.get_logger(__name__)

CHECKS: Final = 3  # in a row
_SHUTDOWN_S: Final = 5  # short, because an idle worker has no work to finish


class Watchdog:
    """Counts consecutive checks in which work waited and this idle worker received nothing."""

    def __init__(
        self, queues: Collection[str], *, received: Callable[[], int], pool: Callable[[], Collection[int]]
    ) -> None:
        self._queues = queues
        self._kinds = kinds_in(queues)
        self._received = received
        self._pool = pool
        self._before = -1
        self._count = 0

    def is_stuck(self) -> bool:
        """Check once, and return whether the last CHECKS checks all found waiting work and an idle worker."""
        received = self._received()
        is_quiet = received == self._before
        self._before = received
        self._count = self._count + 1 if is_quiet and self._is_idle_beside_work() else 0
        return self._count >= CHECKS

    def _is_idle_beside_work(self) -> bool:
        # Uses the job rows, because Celery can still count a request after it lost the process or the connection.
        mine = Job.objects.filter(
            state=Job.State.RUNNING, lease_until__gt=Now(), worker__in=[worker_name(pid) for pid in self._pool()]
        )
        long_ago = Now() - timedelta(seconds=settings.WORKER_DEAF_S)
        due = Q(not_before=None) | Q(not_before__lt=long_ago)
        waiting = Job.objects.filter(due, kind__in=self._kinds, state=Job.State.WAITING, created_at__lt=long_ago)
        try:
            is_overdue = not mine.exists() and waiting.exists()
        except (DatabaseError, InterfaceError):
            return False
        finally:
            connection.close()  # a pool process that is forked later must not inherit it
        return is_overdue and any(broker.waiting(self._queues).values())


def start(queues: Collection[str], *, received: Callable[[], int], pool: Callable[[], Collection[int]]) -> None:
    """Watch this process from a new thread. `received` returns the number of messages, `pool` the workers' pids."""
    watchdog = Watchdog(queues, received=received, pool=pool)

    def watch() -> None:
        while not watchdog.is_stuck():
            time.sleep(settings.WORKER_DEAF_S / CHECKS)
        log.error("worker_deaf", queues=sorted(queues))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SHUTDOWN_S)
        os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
