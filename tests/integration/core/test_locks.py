"""Advisory locks: waiting for them is not limited by the timeout for row locks."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import OperationalError, connection, transaction

from accounts.queries import system_user
from lifecycle.advisories import matching
from lifecycle.core import locks
from lifecycle.jobs import handlers, services
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job
from lifecycle.lineage import services as lineage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def held_for_a_second():
    """Return a function that takes a lock in another connection and releases it after a second."""
    threads = []

    def hold(number):
        is_held = threading.Event()

        def body():
            try:
                with transaction.atomic():
                    locks.wait_for(number)
                    is_held.set()
                    time.sleep(1)
            finally:
                connection.close()

        threads.append(threading.Thread(target=body))
        threads[-1].start()
        assert is_held.wait(10)

    yield hold
    for thread in threads:
        thread.join(timeout=20)


@pytest.mark.parametrize(
    ("number", "work"),
    [(matching._LOCK, lambda: matching.match_packages([1])), (lineage._LOCK, lambda: lineage.derive([1]))],
)
def test_second_job_waits_longer_than_the_row_lock_timeout(held_for_a_second, in_other_connection, number, work):
    held_for_a_second(number)
    assert in_other_connection(work) == set()  # that connection waits 200 ms for a row


def test_wait_for_restores_lock_timeout(held_for_a_second):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        before = cursor.fetchone()
        locks.wait_for(4711)
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == before
    held_for_a_second(4712)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '100ms'")
        with pytest.raises(OperationalError):
            cursor.execute("SELECT pg_advisory_xact_lock(4712)")


def test_job_has_fresh_lease_after_a_long_wait():
    job = services.claim(services.queue(kind_called("match"), subject_id=1, actor=system_user()).pk, worker="w")
    with handlers.JobRun(job).fenced():
        Job.objects.update(lease_until="2020-01-01T00:00:00Z")  # the heartbeat could not renew it
    job.refresh_from_db()
    assert job.lease_until.year > 2020
