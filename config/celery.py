"""The Celery application. Its messages are wake-ups: they contain only the id of a job."""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from celery import Celery
from celery.signals import worker_ready
from kombu import Exchange, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from django.conf import settings

# For messages that a worker received but did not acknowledge. A second delivery is harmless: the job is claimed.
VISIBILITY_TIMEOUT_S: Final = 3 * 3600
HARD_TIME_LIMIT_S: Final = 2 * 3600

QUEUES: Final = ("ingest", "scan", "match", "rebuild", "promote", "notify")

_transport: Final[dict[str, Any]] = {
    "visibility_timeout": VISIBILITY_TIMEOUT_S,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": True,
    # Without these, publishing waits 6 s when Redis is down, because kombu retries until its own timeout.
    "max_retries": 1,
    "interval_start": 0.05,
    "interval_max": 0.1,
}

app = Celery("gravingdock")
app.conf.update(
    broker_url=settings.REDIS_URL,
    broker_transport_options=_transport,
    result_backend_transport_options=_transport,
    visibility_timeout=VISIBILITY_TIMEOUT_S,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_ignore_result=True,
    result_backend=None,
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    task_acks_late=False,  # for the reason, see lifecycle/jobs/tasks.py
    task_time_limit=HARD_TIME_LIMIT_S,
    task_soft_time_limit=HARD_TIME_LIMIT_S - 60,
    task_publish_retry=True,
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0.05, "interval_max": 0.1},
    worker_prefetch_multiplier=1,
    worker_soft_shutdown_timeout=20,
    worker_cancel_long_running_tasks_on_connection_loss=True,  # no effect without late acks; False warns
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    # Each queue has its own exchange and key. With the shared default, every queue would get every message.
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
    task_default_exchange="ingest",
    task_default_routing_key="ingest",
    task_default_queue="ingest",
    task_create_missing_queues=False,
    imports=("lifecycle.jobs.tasks",),
)


_is_watched: Final = threading.Event()


@worker_ready.connect
def _watch(sender: Any, **_: object) -> None:
    from celery.worker import state  # noqa: PLC0415 -- workers only

    from lifecycle.jobs import watchdog  # noqa: PLC0415 -- needs the app registry

    if not _is_watched.is_set():  # the signal is sent again for every new connection
        _is_watched.set()
        watchdog.start(
            list(app.amqp.queues.consume_from),
            received=lambda: sum(state.total_count.values()),
            pool=lambda: list(sender.pool.info.get("processes", ())),
        )
