"""Jobs: claimed once, fenced, retried, swept. PostgreSQL decides, never a message."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.queries import system_user
from lifecycle.core.errors import LeaseLost, RegistryRefused, RegistryUnavailable
from lifecycle.jobs import handlers, kinds, running, schedule, services
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job, ScheduleSlot

pytestmark = pytest.mark.django_db


@pytest.fixture
def handle(monkeypatch):
    """Set the function that does CRAWL jobs in this test."""

    def use(function):
        monkeypatch.setitem(handlers._HANDLERS, "crawl", function)

    return use


def queue(**more):
    return services.queue(kind_called("crawl"), subject_id=1, actor=system_user(), **more)


@pytest.mark.django_db(transaction=True)
def test_queue_sends_a_wake_up_only_after_the_commit(wake_ups):
    with transaction.atomic():
        job = queue()
        assert wake_ups == []
    assert wake_ups == [(job.pk, "ingest")]


@pytest.mark.django_db(transaction=True)
def test_queue_leaves_nothing_when_the_transaction_rolls_back(wake_ups):
    with transaction.atomic():
        queue()
        transaction.set_rollback(True)
    assert not Job.objects.exists()
    assert wake_ups == []


def test_queue_returns_the_waiting_job_with_the_same_key_once():
    first, second = queue(dedupe_key="x"), queue(dedupe_key="x")
    assert first.pk == second.pk
    services.claim(first.pk, worker="w")
    assert queue(dedupe_key="x").pk != first.pk


@pytest.mark.django_db(transaction=True)
def test_claim_gives_a_job_to_one_of_two_workers(in_other_connection):
    job = queue()
    with transaction.atomic():
        assert Job.objects.select_for_update().get(pk=job.pk)
        assert in_other_connection(lambda: services.claim(job.pk, worker="b")) is None  # skips, does not wait
    assert in_other_connection(lambda: services.claim(job.pk, worker="b")).fence == 1
    assert services.claim(job.pk, worker="a") is None


def test_a_worker_whose_lease_ran_out_can_commit_nothing(settings):
    settings.JOB_LEASE_S = 0
    job = queue()
    late = services.claim(job.pk, worker="late")
    current = services.claim(job.pk, worker="current")
    assert current.fence == late.fence + 1
    with pytest.raises(LeaseLost), handlers.JobRun(late).fenced():
        pytest.fail("entered with an old fence")
    with pytest.raises(LeaseLost):
        services.succeed(late)
    with handlers.JobRun(current).fenced():
        pass


def test_run_ends_a_job_whose_handler_returns(handle):
    seen = []
    handle(lambda run: seen.append(run.job.pk))
    job = queue()
    running.run(job.pk)
    running.run(job.pk)  # a doubled wake-up
    job.refresh_from_db()
    assert (seen, job.state, job.attempts) == ([job.pk], Job.State.SUCCEEDED, 1)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RegistryUnavailable("away"), Job.State.WAITING),
        (RegistryRefused("no"), Job.State.FAILED),
        (ValueError("a bug"), Job.State.WAITING),
    ],
)
def test_run_retries_only_what_time_can_heal(handle, error, state):
    def fail(run):
        raise error

    handle(fail)
    job = queue()
    running.run(job.pk)
    job.refresh_from_db()
    assert job.state == state
    assert str(error) in job.last_error
    assert (job.not_before is not None) == (state == Job.State.WAITING)


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_connection_broke_begins_again_without_losing_an_attempt(handle):
    def break_it(run):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    handle(break_it)
    job = queue(max_attempts=1)
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts, job.last_error) == (
        Job.State.WAITING,
        0,
        "The connection to the database was lost.",
    )
    handle(lambda run: None)
    Job.objects.update(not_before=None)
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.SUCCEEDED, 1)


def test_run_tells_who_waits_when_all_attempts_are_used(handle, monkeypatch):
    told = []
    monkeypatch.setitem(kinds._GAVE_UP, "crawl", lambda job: told.append(job.pk))

    def fail(run):
        raise RegistryUnavailable("away")

    handle(fail)
    job = queue(max_attempts=1)
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, told) == (Job.State.FAILED, [job.pk])


def test_a_postponed_job_waits_without_losing_an_attempt(handle):
    def wait(run):
        raise handlers.Postponed("not scanned yet", seconds=5)

    handle(wait)
    job = queue()
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts, job.last_error) == (Job.State.WAITING, 0, "not scanned yet")


def test_sweep_wakes_lost_and_dead_jobs_once_in_a_period(wake_ups):
    lost, dead, later = queue(), queue(), queue(not_before=timezone.now() + timedelta(hours=1))
    services.claim(dead.pk, worker="killed")
    Job.objects.filter(pk=dead.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    Job.objects.filter(pk=lost.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    assert services.sweep() == 2
    assert {job for job, _ in wake_ups} == {lost.pk, dead.pk}
    assert later.pk not in {job for job, _ in wake_ups}
    assert services.sweep() == 0


def test_sweep_leaves_a_queue_alone_that_is_behind(monkeypatch, wake_ups):
    lengths = {"ingest": services.QUEUE_ENOUGH, "match": services.QUEUE_ENOUGH - 1}
    monkeypatch.setattr(services.broker, "waiting", lambda queues: lengths)
    behind = queue()
    other = services.queue(kind_called("lineage"), subject_id=1, actor=system_user())
    Job.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    wake_ups.clear()
    assert services.sweep() == 1
    assert [job for job, _ in wake_ups] == [other.pk]
    lengths["ingest"] = 0
    assert services.sweep() == 1
    assert [job for job, _ in wake_ups] == [other.pk, behind.pk]


def test_a_due_moment_fires_once_for_any_number_of_tickers(monkeypatch):
    fired = []
    monkeypatch.setattr(schedule, "_SCHEDULES", [schedule.Schedule("x", 60, lambda: fired.append(1))])
    assert schedule.run_due(now_s=600.0) == ["x"]
    assert schedule.run_due(now_s=601.0) == []
    assert schedule.run_due(now_s=660.0) == ["x"]
    assert (len(fired), ScheduleSlot.objects.count()) == (2, 2)


def test_a_schedule_that_fails_is_due_again_and_holds_up_no_other(monkeypatch):
    fired = []

    def fail():
        ScheduleSlot.objects.create(schedule="of the one that fails", slot=1)
        raise ValueError("a bug")

    both = [schedule.Schedule("bad", 60, fail), schedule.Schedule("good", 60, lambda: fired.append(1))]
    monkeypatch.setattr(schedule, "_SCHEDULES", both)
    assert schedule.run_due(now_s=600.0) == ["good"]
    assert [slot.schedule for slot in ScheduleSlot.objects.all()] == ["good"]
    monkeypatch.setattr(schedule, "_SCHEDULES", [schedule.Schedule("bad", 60, lambda: fired.append(2))])
    assert schedule.run_due(now_s=601.0) == ["bad"]
    assert fired == [1, 2]


def ended(state=Job.State.FAILED, *, hours=0.0, kind="match", code="crashed", payload=None, subject_id=1):
    """Return a job that ended so long ago."""
    job = services.queue(kind_called(kind), subject_id=subject_id, actor=system_user(), payload=payload)
    at = timezone.now() - timedelta(hours=hours)
    Job.objects.filter(pk=job.pk).update(state=state, error_code=code, finished_at=at, created_at=at)
    return job


def test_what_failed_for_a_while_is_queued_again_once():
    job = ended(hours=0.1, payload={"package_ids": [5]})
    for _ in range(2):
        schedule.queue_again()
    again = Job.objects.get(state=Job.State.WAITING)
    assert (again.kind, again.subject_id, again.payload, again.actor) == (job.kind, 1, {"package_ids": [5]}, job.actor)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED


@pytest.mark.parametrize(
    ("failures", "hours", "is_due"),
    [(1, 0.05, False), (1, 0.1, True), (2, 0.2, False), (2, 0.3, True), (3, 0.9, False), (3, 1.1, True),
     (25, 1.1, True), (27, 1.1, False), (27, 23.9, False), (27, 24.1, True), (40, 24.1, True)],
)  # fmt: skip
def test_the_pauses_grow_with_each_failure_in_a_row_to_a_day(failures, hours, is_due):
    ended(hours=200)
    ended(Job.State.SUCCEEDED, hours=199, code="")  # what failed before is forgotten
    for number in range(failures):
        ended(hours=hours + failures - number - 1)
    schedule.queue_again()
    assert Job.objects.filter(state=Job.State.WAITING).exists() == is_due


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "promote"},
        {"kind": "crawl"},
        {"kind": "scan", "code": "registry_refused"},
        {"state": Job.State.CANCELLED},
    ],
)
def test_what_has_another_way_or_cannot_heal_is_not_queued_again(more):
    ended(hours=48, **more)
    schedule.queue_again()
    assert not Job.objects.filter(state=Job.State.WAITING).exists()


def test_what_was_asked_for_again_already_is_not_queued_twice():
    ended(hours=48, payload={"package_ids": [5]})
    ended(Job.State.SUCCEEDED, hours=47, code="", payload={"package_ids": [6]})  # another batch of the same image
    ended(hours=48, kind="scan")
    services.queue(kind_called("scan"), subject_id=1, actor=system_user())
    ended(hours=48, kind="lineage")
    ended(Job.State.SUCCEEDED, hours=47, code="", kind="lineage")
    ended(hours=48, kind="plan")
    before = set(Job.objects.values_list("pk", flat=True))
    schedule.queue_again()
    fresh = Job.objects.exclude(pk__in=before).order_by("kind")
    assert list(fresh.values_list("kind", "payload")) == [("match", {"package_ids": [5]}), ("plan", {})]
