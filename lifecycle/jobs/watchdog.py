"""A worker that is connected but hears nothing ends itself, so that whoever keeps it running starts another.

Celery over Redis can come out of a lost connection consuming nothing, with every ping answered (celery #8030, #9054;
security.md F6). So what counts is work: jobs that wait too long though their wake-ups are sent, beside an idle worker
that receives none.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final

import redis
import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Q
from django.db.models.functions import Now

from lifecycle.jobs.models import Job
from lifecycle.jobs.services import QUEUE_OF

log = structlog.get_logger(__name__)

CHECKS: Final = 3  # in a row
_LAST_WORDS_S: Final = 30  # for an end in good order


class Watchdog:
    """Counts checks in a row at which work waited for an idle worker that received nothing."""

    def __init__(self, queues: Collection[str], *, received: Callable[[], int], is_busy: Callable[[], bool]) -> None:
        self._kinds = [kind for kind, queue in QUEUE_OF.items() if queue in queues]
        self._received = received
        self._is_busy = is_busy
        self._before = -1
        self._count = 0

    def is_deaf(self) -> bool:
        """Check once; returns whether it has been so at CHECKS checks in a row."""
        received = self._received()
        is_quiet = received == self._before and not self._is_busy()
        self._before = received
        self._count = self._count + 1 if is_quiet and self._is_work_waiting() and _is_broker_there() else 0
        return self._count >= CHECKS

    def _is_work_waiting(self) -> bool:
        long_ago = Now() - timedelta(seconds=settings.WORKER_DEAF_S)
        due = Q(not_before=None) | Q(not_before__lt=long_ago)
        waiting = Job.objects.filter(due, kind__in=self._kinds, state=Job.State.WAITING, created_at__lt=long_ago)
        hinted = waiting.filter(hinted_at__gt=Now() - timedelta(seconds=3 * settings.JOB_SWEEP_S + 5))
        try:
            return hinted.exists()
        except (DatabaseError, InterfaceError):
            return False
        finally:
            connection.close()  # a pool process that is forked now must not inherit it


def _is_broker_there() -> bool:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def start(queues: Collection[str], *, received: Callable[[], int], is_busy: Callable[[], bool]) -> None:
    """Watch this process from a thread of its own."""
    watchdog = Watchdog(queues, received=received, is_busy=is_busy)

    def watch() -> None:
        while not watchdog.is_deaf():
            time.sleep(settings.WORKER_DEAF_S / CHECKS)
        log.error("worker_deaf", queues=sorted(queues))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_WORDS_S)
        os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
