"""Claims, fences, retries and sweeps of jobs. PostgreSQL decides the state, not the messages."""

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
    """Set the handler of `crawl` jobs in this test."""

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
def test_queue_creates_nothing_when_transaction_rolls_back(wake_ups):
    with transaction.atomic():
        queue()
        transaction.set_rollback(True)
    assert not Job.objects.exists()
    assert wake_ups == []


def test_queue_returns_waiting_job_with_same_key():
    first, second = queue(dedupe_key="x"), queue(dedupe_key="x")
    assert first.pk == second.pk
    services.claim(first.pk, worker="w")
    assert queue(dedupe_key="x").pk != first.pk


@pytest.mark.django_db(transaction=True)
def test_claim_gives_job_to_only_one_worker(in_other_connection):
    job = queue()
    with transaction.atomic():
        assert Job.objects.select_for_update().get(pk=job.pk)
        assert in_other_connection(lambda: services.claim(job.pk, worker="b")) is None  # skips the row, no wait
    assert in_other_connection(lambda: services.claim(job.pk, worker="b")).fence == 1
    assert services.claim(job.pk, worker="a") is None


def test_worker_with_expired_lease_cannot_commit(settings):
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


def test_run_completes_job_once(handle):
    seen = []
    handle(lambda run: seen.append(run.job.pk))
    job = queue()
    running.run(job.pk)
    running.run(job.pk)  # a duplicate wake-up
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
def test_run_retries_only_temporary_errors(handle, error, state):
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
def test_lost_connection_does_not_use_an_attempt(handle):
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


def test_run_calls_gave_up_hook_when_attempts_are_used(handle, monkeypatch):
    told = []
    monkeypatch.setitem(kinds._GAVE_UP, "crawl", lambda job: told.append(job.pk))

    def fail(run):
        raise RegistryUnavailable("away")

    handle(fail)
    job = queue(max_attempts=1)
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, told) == (Job.State.FAILED, [job.pk])


def test_postponed_job_waits_without_using_an_attempt(handle):
    def wait(run):
        raise handlers.Postponed("not scanned yet", seconds=5)

    handle(wait)
    job = queue()
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts, job.last_error) == (Job.State.WAITING, 0, "not scanned yet")


def test_sweep_wakes_lost_and_dead_jobs_once_per_period(wake_ups):
    lost, dead, later = queue(), queue(), queue(not_before=timezone.now() + timedelta(hours=1))
    services.claim(dead.pk, worker="killed")
    Job.objects.filter(pk=dead.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    Job.objects.filter(pk=lost.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    assert services.sweep() == 2
    assert {job for job, _ in wake_ups} == {lost.pk, dead.pk}
    assert later.pk not in {job for job, _ in wake_ups}
    assert services.sweep() == 0


def test_sweep_skips_queue_with_backlog(monkeypatch, wake_ups):
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


def test_schedule_runs_once_with_several_tickers(monkeypatch):
    fired = []
    monkeypatch.setattr(schedule, "_SCHEDULES", [schedule.Schedule("x", 60, lambda: fired.append(1))])
    assert schedule.run_due(now_s=600.0) == ["x"]
    assert schedule.run_due(now_s=601.0) == []
    assert schedule.run_due(now_s=660.0) == ["x"]
    assert (len(fired), ScheduleSlot.objects.count()) == (2, 2)


def test_failed_schedule_runs_again_and_does_not_block_others(monkeypatch):
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


def finished_job(state=Job.State.FAILED, *, hours=0.0, kind="match", code="crashed", payload=None, subject_id=1):
    """Return a job that finished `hours` ago."""
    job = services.queue(kind_called(kind), subject_id=subject_id, actor=system_user(), payload=payload)
    at = timezone.now() - timedelta(hours=hours)
    Job.objects.filter(pk=job.pk).update(state=state, error_code=code, finished_at=at, created_at=at)
    return job


def test_failed_job_is_queued_again_once():
    job = finished_job(hours=0.1, payload={"package_ids": [5]})
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
def test_pause_grows_with_failures_in_a_row_up_to_a_day(failures, hours, is_due):
    finished_job(hours=200)
    finished_job(Job.State.SUCCEEDED, hours=199, code="")  # a success resets the earlier failures
    for number in range(failures):
        finished_job(hours=hours + failures - number - 1)
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
def test_job_with_own_retry_or_permanent_error_is_not_queued_again(more):
    finished_job(hours=48, **more)
    schedule.queue_again()
    assert not Job.objects.filter(state=Job.State.WAITING).exists()


def test_job_already_queued_again_is_not_queued_twice():
    finished_job(hours=48, payload={"package_ids": [5]})
    # another batch of the same image
    finished_job(Job.State.SUCCEEDED, hours=47, code="", payload={"package_ids": [6]})
    finished_job(hours=48, kind="scan")
    services.queue(kind_called("scan"), subject_id=1, actor=system_user())
    finished_job(hours=48, kind="lineage")
    finished_job(Job.State.SUCCEEDED, hours=47, code="", kind="lineage")
    finished_job(hours=48, kind="plan")
    before = set(Job.objects.values_list("pk", flat=True))
    schedule.queue_again()
    fresh = Job.objects.exclude(pk__in=before).order_by("kind")
    assert list(fresh.values_list("kind", "payload")) == [("match", {"package_ids": [5]}), ("plan", {})]
