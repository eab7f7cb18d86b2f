"""Jobs while Redis and PostgreSQL fail under them: rows decide, so all end, each effect once."""

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


@pytest.mark.django_db(transaction=True)
def test_who_queues_many_jobs_does_not_wait_for_a_broker_that_is_away(services: Services) -> None:
    services.kill("redis")
    started = time.monotonic()
    with transaction.atomic():
        for number in range(50):
            jobs.queue(kind_called("crawl"), subject_id=number, actor=system_user())
    assert time.monotonic() - started < 4
    assert Job.objects.filter(state=Job.State.WAITING).count() == 50


@pytest.fixture
def without_workers(services: Services, transactional_db: None) -> Services:
    """Registry and web over PostgreSQL and Redis, all empty; a test starts workers when it wants them."""
    services.end_writers()
    services.need_web()
    services.forget_wake_ups()
    shutil.rmtree(services.registry.folder / "data", ignore_errors=True)
    services.need_registry()
    dock.team("shop")
    return services


def done(kind: str) -> int:
    return Job.objects.filter(kind=kind, state=Job.State.SUCCEEDED).count()


@pytest.mark.timeout(500)
def test_two_hundred_jobs_end_once_each_whatever_fails_under_them(without_workers: Services) -> None:
    stack = without_workers
    http = HttpClient()
    client = HttpRegistryClient(stack.registry.url, http=http, authorizer=SelfIssued())
    items = [oci.image(str(number)) for number in range(COUNT)]
    for number, item in enumerate(items):
        oci.push(client, f"shop/r{number % 10}", item, f"v{number}")
    http.close()
    wait_until(lambda: Job.objects.filter(kind="ingest", state=Job.State.WAITING).count() == COUNT, 60)

    workers = Supervised(stack, "worker", "ticker", WORKER_DEAF_S="10")
    workers.wait_until(lambda: done("ingest") >= 10, 60, every_s=0.02)
    stack.forget_wake_ups()
    stack.kill("redis")
    stack.need_redis()
    workers.wait_until(lambda: done("ingest") >= 60, 90, every_s=0.02)
    ended = 0
    for _ in range(3):
        ended += stack.end_connections()
        time.sleep(0.3)
    assert ended >= 3
    workers.wait_until(lambda: done("ingest") >= 120, 60, every_s=0.02)
    connection.close()
    stack.kill("postgres", signal.SIGINT)
    stack.need_postgres()
    workers.wait_until(lambda: done("ingest") == COUNT, 120)
    workers.wait_until(lambda: done("lineage") == COUNT, 120)

    digests = sorted(item.manifest.digest.text for item in items)
    assert sorted(Image.objects.values_list("digest", flat=True)) == digests
    assert sorted(TagEvent.objects.values_list("new_image__digest", flat=True)) == digests
    assert sorted(AuditEvent.objects.filter(action="image.pushed").values_list("digest", flat=True)) == digests
    # Nobody scans here: each image waits for it once. The ticker's own crawl may wait for the database's next second.
    unfinished = Job.objects.exclude(state=Job.State.SUCCEEDED).exclude(kind="crawl")
    assert list(unfinished.values_list("kind", flat=True)) == ["scan"] * COUNT


def is_at_work(job: Job) -> bool:
    job.refresh_from_db()
    return job.state == Job.State.RUNNING


def has_ended(job: Job) -> bool:
    job.refresh_from_db()
    return job.is_final


class Supervised:
    """Workers that are started again when they end, as every installation does it."""

    def __init__(self, stack: Services, *names: str, app: str = "config.celery", **settings: str) -> None:
        self._start = partial(stack.need_workers, *names, app=app, **settings)
        self._start()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, *, every_s: float = 0.1) -> None:
        def check() -> bool:
            self._start()
            return condition()

        wait_until(check, timeout_s, every_s=every_s)

    def work(self, image: Image) -> bool:
        """Whether a worker does a job that is queued now."""
        job = jobs.queue(kind_called("lineage"), subject_id=image.pk, actor=system_user())
        self.wait_until(lambda: has_ended(job), 150)
        return job.state == Job.State.SUCCEEDED


def test_work_goes_on_and_workers_consume_again_when_redis_restarts_and_a_job_that_kills_them_ends(
    without_workers: Services,
) -> None:
    stack = without_workers
    workers = Supervised(stack, "worker", "ticker", app="tests.fakes.crashing", WORKER_DEAF_S="10")
    deadly = jobs.queue(kind_called("crawl"), subject_id=1, actor=system_user(), max_attempts=3)
    long = jobs.queue(kind_called("plan"), subject_id=1, actor=system_user())
    image = dock.image("some image")
    workers.wait_until(lambda: is_at_work(long), 60)

    for _ in range(3):
        stack.kill("redis")
        stack.need_redis()
        assert workers.work(image)
    workers.wait_until(lambda: has_ended(long), 60)
    assert (long.state, long.attempts) == (Job.State.SUCCEEDED, 1)  # no broker ends what has begun
    workers.wait_until(lambda: has_ended(deadly), 60)
    assert (deadly.state, deadly.attempts, deadly.error_code) == (Job.State.FAILED, 3, "attempts_used")
    assert "died" in deadly.last_error
    assert workers.work(image)


def test_a_worker_that_is_idle_while_work_waits_for_it_ends_itself(without_workers: Services) -> None:
    stack = without_workers
    image = dock.image("some image")
    assert Supervised(stack, "worker", "ticker", WORKER_DEAF_S="3").work(image)
    worker = stack.processes["worker"]
    # Connected, answering, and consuming nothing: what some lost connections leave behind.
    celery.control.cancel_consumer("match", destination=["worker@test"], reply=True, timeout=10)
    time.sleep(5)
    assert worker.poll() is None  # nothing waits, so there is nothing to be deaf for
    job = jobs.queue(kind_called("lineage"), subject_id=image.pk, actor=system_user())
    worker.wait(timeout=60)
    stack.need_workers("worker")  # as the supervisor would
    wait_until(lambda: has_ended(job), 60)
    assert job.state == Job.State.SUCCEEDED
