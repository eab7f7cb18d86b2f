"""What the rows of jobs keep at their limits: lengths, pauses, states, and what ends a worker's hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from accounts.queries import system_user
from lifecycle.core.errors import IllegalTransition, LeaseLost
from lifecycle.jobs import broker, queries, schedule, services, steering, tasks
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job, JobLogLine, ScheduleSlot
from lifecycle.jobs.running import worker_name
from lifecycle.jobs.watchdog import CHECKS, Watchdog

pytestmark = pytest.mark.django_db


def queued(**more: Any) -> Job:
    return services.queue(kind_called("crawl"), subject_id=1, actor=system_user(), **more)


def held(**more: Any) -> Job:
    job = services.claim(queued(**more).pk, worker="w" * 200)
    assert job is not None
    return job


def test_failed_attempt_waits_and_its_texts_fit():
    job = held()
    before = timezone.now()
    assert services.fail(job, code="x", message="m" * 9000, is_transient=True, retry_after_s=60) is False
    job.refresh_from_db()
    assert (len(job.worker), len(job.last_error)) == (120, 4000)
    assert job.not_before is not None
    assert timedelta(seconds=55) < job.not_before - before < timedelta(seconds=65)
    Job.objects.filter(pk=job.pk).update(not_before=None)
    again = services.claim(job.pk, worker="w")
    assert again is not None
    assert services.fail(again, code="x", message="m" * 9000, is_transient=False) is True
    again.refresh_from_db()
    assert (again.state, len(again.last_error), again.error_code) == ("failed", 4000, "x")


def test_progress_is_cut_and_only_the_holder_reports_it():
    job = held()
    services.report_progress(job, 1, 2, "p" * 900)
    job.refresh_from_db()
    assert (job.progress_done, job.progress_total, len(job.progress_text)) == (1, 2, 300)
    services.renew(job)
    services.finish(Job.objects.get(pk=job.pk), Job.State.CANCELLED, "", "")
    for act in (lambda: services.renew(job), lambda: services.report_progress(job, 2, 2, "")):
        with pytest.raises(LeaseLost):
            act()


def test_log_has_no_empty_lines_and_no_control_characters():
    job = queued()
    services.append_log(job, "one\x1b[31m\tred\n  \n\x00\ntwo")
    assert list(JobLogLine.objects.order_by("pk").values_list("text", flat=True)) == ["one[31m\tred", "two"]
    lines = JobLogLine.objects.all()
    assert [queries.log_tail(lines, limit=limit)[1] for limit in (1, 2, 3)] == [True, False, False]
    assert [line.text for line in queries.log_tail(lines, limit=1)[0]] == ["two"]


def test_job_without_attempts_left_fails_when_it_is_claimed():
    job = queued(max_attempts=1)
    Job.objects.filter(pk=job.pk).update(attempts=1)
    assert services.claim(job.pk, worker="w") is None
    job.refresh_from_db()
    assert (job.state, job.error_code) == ("failed", "attempts_used")
    with pytest.raises(IllegalTransition, match="already failed"):
        steering.cancel(job.pk, actor=system_user())


def test_wake_up_runs_the_job(monkeypatch):
    ran: list[int] = []
    monkeypatch.setattr("lifecycle.jobs.running.run", ran.append)
    tasks.run_job(7)
    assert ran == [7]


def test_sweep_wakes_no_finished_job(monkeypatch, wake_ups):
    monkeypatch.setattr(broker, "waiting", lambda queues: {})
    job = held()
    services.succeed(job)
    assert services.sweep() == 0
    assert wake_ups == []


@pytest.mark.django_db(transaction=True)
def test_sweep_does_not_wait_for_a_locked_job(monkeypatch, in_other_connection):
    monkeypatch.setattr(broker, "waiting", lambda queues: {})
    job = queued()
    Job.objects.update(created_at=timezone.now() - timedelta(minutes=1), hinted_at=None)
    with transaction.atomic():
        assert Job.objects.select_for_update().get(pk=job.pk)
        assert in_other_connection(services.sweep) == 0
    assert in_other_connection(services.sweep) == 1


def test_schedule_takes_the_slot_of_the_clock_and_stops_without_database(monkeypatch):
    runs: list[str] = []
    monkeypatch.setattr(schedule, "_SCHEDULES", [])

    def action() -> None:
        runs.append("x")

    assert schedule.every(60, "probe")(action) is action
    before = int(timezone.now().timestamp() // 60)
    assert schedule.run_due() == ["probe"]
    assert before <= ScheduleSlot.objects.get(schedule="probe").slot <= before + 1

    def lose() -> None:
        raise OperationalError("away")

    schedule.every(60, "lost")(lose)
    with pytest.raises(OperationalError):
        schedule.run_due(0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("change", "in_redis", "is_stuck"),
    [
        ({}, 1, True),
        ({}, 0, False),  # nothing for this worker to take
        ({"created_at": timezone.now() + timedelta(days=1)}, 1, False),  # too new
        ({"state": "cancelled", "finished_at": timezone.now()}, 1, False),  # does not wait
        ({"kind": "no such kind"}, 1, False),  # for other workers
        ({"not_before": timezone.now() + timedelta(days=1)}, 1, False),  # not due
    ],
    ids=["stuck", "empty", "new", "ended", "other", "later"],
)
def test_idle_worker_beside_waiting_work_is_stuck(monkeypatch, change, in_redis, is_stuck):
    monkeypatch.setattr(broker, "waiting", lambda queues: {"ingest": in_redis})
    queued()
    Job.objects.update(**({"created_at": timezone.now() - timedelta(hours=1)} | change))
    dog = Watchdog(["ingest"], received=lambda: 5, pool=lambda: [1])
    assert [dog.is_stuck() for _ in range(CHECKS + 1)] == [False] * CHECKS + [is_stuck]


@pytest.mark.django_db(transaction=True)
def test_working_or_receiving_worker_is_not_stuck(monkeypatch):
    monkeypatch.setattr(broker, "waiting", lambda queues: {"ingest": 1})
    queued()
    mine = queued()
    Job.objects.update(created_at=timezone.now() - timedelta(hours=1))
    numbers = iter(range(100))
    dog = Watchdog(["ingest"], received=lambda: next(numbers), pool=lambda: [1])
    assert not any(dog.is_stuck() for _ in range(CHECKS + 2))
    assert services.claim(mine.pk, worker=worker_name(1)) is not None
    dog = Watchdog(["ingest"], received=lambda: 5, pool=lambda: [1])
    assert not any(dog.is_stuck() for _ in range(CHECKS + 2))
    assert not connection.in_atomic_block
