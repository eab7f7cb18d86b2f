"""Jobs while Redis and PostgreSQL fail under them: rows decide, so all end, each effect once."""

from __future__ import annotations

import time

import pytest
from django.db import transaction

from accounts.queries import system_user
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job, JobKind
from tests.services import Services


@pytest.mark.django_db(transaction=True)
def test_who_queues_many_jobs_does_not_wait_for_a_broker_that_is_away(services: Services) -> None:
    services.kill("redis")
    started = time.monotonic()
    with transaction.atomic():
        for number in range(50):
            jobs.queue(JobKind.CRAWL, subject_id=number, actor=system_user())
    assert time.monotonic() - started < 4
    assert Job.objects.filter(state=Job.State.WAITING).count() == 50
