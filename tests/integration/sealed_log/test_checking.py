"""The whole log derived again each night: what it finds first, and that a job notes it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.jobs.handlers import JobRun
from lifecycle.jobs.models import Job
from lifecycle.sealed_log import services as sealing
from lifecycle.sealed_log.checking import check_log
from lifecycle.sealed_log.models import LogCheck
from lifecycle.sealed_log.queries import current_origin, last_checkpoint
from lifecycle.sealed_log.status import status
from tests.integration.sealed_log.tampering import TAMPERING, forget_log, tamper
from tests.integration.sealed_log.test_sealer import restore_to


@pytest.fixture
def whole(log, write, transactional_db):
    admin = User.objects.create(username="admin", is_superuser=True)
    write(6, actor=admin, reason="why")
    log.seal()
    write(3, actor=admin, reason="why")
    log.seal()
    return log


def test_whole_log_is_all_right(whole, write):
    assert check_log() == (11, None)
    write(5)
    assert check_log() == (11, None)  # they wait to be sealed


# What only somebody with an older checkpoint, or with the tiles, can see.
UNSEEN = {"cut the tail", "edit a tile", "insert an entry"}


@pytest.mark.parametrize("how", sorted(set(TAMPERING) - UNSEEN))
def test_tampering_is_named_by_its_index(how, whole, services):
    tamper(how, services)
    _, found = check_log()
    assert found is not None
    assert found.index == TAMPERING[how][1]


def test_event_without_entry_is_found(whole, write, services):
    (event,) = write()
    services._as_superuser("DELETE FROM lifecycle_auditpending")
    _, found = check_log()
    assert str(found) == f"Event {event.pk} is in no log."


def test_earlier_log_that_a_later_one_follows_is_missed(whole, write, services):
    before = last_checkpoint(current_origin())
    write(4)
    whole.seal()
    restore_to(before, services)
    write()
    whole.seal()
    assert check_log()[1] is None
    forget_log(1, services)
    _, found = check_log()
    assert found is not None
    assert (found.origin, found.index) == (current_origin().name, 0)
    assert "follows 11 entries" in found.text


def test_job_notes_what_it_found(whole, services):
    for problem in ("", "entry 5"):
        if problem:
            tamper("edit a reason", services)
        sealing.queue_check()
        job = Job.objects.filter(kind="check-log").latest("pk")
        Job.objects.filter(pk=job.pk).update(
            state="running", lease_until=clock.now() + timedelta(minutes=1), started_at=clock.now()
        )
        job.refresh_from_db()
        sealing.run_check(JobRun(job))
        row = LogCheck.objects.latest("at")
        assert (row.entries, problem in row.problem, bool(row.problem)) == (11, True, bool(problem))
        Job.objects.filter(pk=job.pk).update(state="succeeded", lease_until=None, finished_at=clock.now())
    assert any("The last check found" in text for text in status().problems)
    assert AuditEvent.objects.count() == 10
