"""Jobs while Redis and PostgreSQL fail: every job finishes, and each effect happens once."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest
from django.db import connection, transaction

from accounts.queries import system_user
from config.celery import app as celery
from lifecycle.audit.models import AuditEvent
from lifecycle.core.http import HttpClient
from lifecycle.jobs import services as jobs
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job
from lifecycle.oci.authorization import SelfIssued
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.registry.models import Image, TagEvent
from tests.factories import dock, oci
from tests.services import Services, wait_until

COUNT = 200
BY_THE_CLOCK = ("crawl", "remedies", "alerts", "drift", "trends")


@pytest.mark.django_db(transaction=True)
def test_queue_does_not_wait_when_broker_is_down(services: Services) -> None:
    services.kill("redis")
    started = time.monotonic()
    with transaction.atomic():
        for number in range(50):
            jobs.queue(kind_called("crawl"), subject_id=number, actor=system_user())
    assert time.monotonic() - started < 4
    assert Job.objects.filter(state=Job.State.WAITING).count() == 50


@pytest.fixture
def without_workers(services: Services, transactional_db: None) -> Services:
    """The registry and web process over an empty PostgreSQL and Redis. Tests start workers themselves."""
    services.end_writers()
    services.need_web()
    services.forget_wake_ups()
    shutil.rmtree(services.registry.folder / "data", ignore_errors=True)
    services.need_registry()
    dock.team("shop")
    return services


def count_succeeded(kind: str) -> int:
    return Job.objects.filter(kind=kind, state=Job.State.SUCCEEDED).count()


@pytest.mark.timeout(500)
def test_all_jobs_finish_once_when_services_fail(without_workers: Services) -> None:
    stack = without_workers
    http = HttpClient()
    client = HttpRegistryClient(stack.registry.url, http=http, authorizer=SelfIssued())
    items = [oci.image(str(number)) for number in range(COUNT)]
    for number, item in enumerate(items):
        oci.push(client, f"shop/r{number % 10}", item, f"v{number}")
    http.close()
    wait_until(lambda: Job.objects.filter(kind="ingest", state=Job.State.WAITING).count() == COUNT, 60)

    workers = Supervised(stack, "worker", "ticker", WORKER_DEAF_S="10")
    workers.wait_until(lambda: count_succeeded("ingest") >= 10, 60, every_s=0.02)
    stack.forget_wake_ups()
    stack.kill("redis")
    stack.need_redis()
    workers.wait_until(lambda: count_succeeded("ingest") >= 60, 90, every_s=0.02)
    ended = 0
    for _ in range(3):
        ended += stack.end_connections()
        time.sleep(0.3)
    assert ended >= 3
    workers.wait_until(lambda: count_succeeded("ingest") >= 120, 60, every_s=0.02)
    connection.close()
    stack.kill("postgres", signal.SIGINT)
    stack.need_postgres()
    workers.wait_until(lambda: count_succeeded("ingest") == COUNT, 120)
    workers.wait_until(lambda: count_succeeded("lineage") == COUNT, 120)
    workers.wait_until(lambda: count_succeeded("verify") >= COUNT, 120)

    digests = sorted(item.manifest.digest.text for item in items)
    assert sorted(Image.objects.values_list("digest", flat=True)) == digests
    assert sorted(TagEvent.objects.values_list("new_image__digest", flat=True)) == digests
    assert sorted(AuditEvent.objects.filter(action="image.pushed").values_list("digest", flat=True)) == digests
    # No worker scans here: each image has one waiting scan. What the ticker queues by itself may wait, too.
    unfinished = Job.objects.exclude(state=Job.State.SUCCEEDED).exclude(kind__in=BY_THE_CLOCK)
    assert list(unfinished.values_list("kind", flat=True)) == ["scan"] * COUNT


def is_running(job: Job) -> bool:
    job.refresh_from_db()
    return job.state == Job.State.RUNNING


def has_finished(job: Job) -> bool:
    job.refresh_from_db()
    return job.is_final


class Supervised:
    """Workers that are restarted when they exit, as in every installation."""

    def __init__(self, stack: Services, *names: str, app: str = "config.celery", **settings: str) -> None:
        self._start = partial(stack.need_workers, *names, app=app, **settings)
        self._start()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, *, every_s: float = 0.1) -> None:
        def check() -> bool:
            self._start()
            return condition()

        wait_until(check, timeout_s, every_s=every_s)

    def completes_job(self, image: Image) -> bool:
        """Return whether a worker completes a newly queued job."""
        job = jobs.queue(kind_called("lineage"), subject_id=image.pk, actor=system_user())
        self.wait_until(lambda: has_finished(job), 150)
        return job.state == Job.State.SUCCEEDED


def test_workers_recover_from_redis_restarts_and_jobs_that_kill_them(
    without_workers: Services,
) -> None:
    stack = without_workers
    workers = Supervised(stack, "worker", "ticker", app="tests.fakes.crashing", WORKER_DEAF_S="10")
    deadly = jobs.queue(kind_called("crawl"), subject_id=1, actor=system_user(), max_attempts=3)
    long = jobs.queue(kind_called("plan"), subject_id=1, actor=system_user())
    image = dock.image("some image")
    workers.wait_until(lambda: is_running(long), 60)

    for _ in range(3):
        stack.kill("redis")
        stack.need_redis()
        assert workers.completes_job(image)
    workers.wait_until(lambda: has_finished(long), 60)
    assert (long.state, long.attempts) == (Job.State.SUCCEEDED, 1)  # a lost broker does not stop a running job
    workers.wait_until(lambda: has_finished(deadly), 60)
    assert (deadly.state, deadly.attempts, deadly.error_code) == (Job.State.FAILED, 3, "attempts_used")
    assert "died" in deadly.last_error
    assert workers.completes_job(image)


def test_idle_worker_restarts_when_jobs_are_waiting(without_workers: Services) -> None:
    stack = without_workers
    image = dock.image("some image")
    assert Supervised(stack, "worker", "ticker", WORKER_DEAF_S="3").completes_job(image)
    worker = stack.processes["worker"]
    # Connected and responsive, but without a consumer. Some lost connections leave this state.
    celery.control.cancel_consumer("match", destination=["worker@test"], reply=True, timeout=10)
    time.sleep(5)
    assert worker.poll() is None  # no job waits, so the worker keeps running
    job = jobs.queue(kind_called("lineage"), subject_id=image.pk, actor=system_user())
    worker.wait(timeout=60)
    stack.need_workers("worker")  # as the supervisor would
    wait_until(lambda: has_finished(job), 60)
    assert job.state == Job.State.SUCCEEDED
