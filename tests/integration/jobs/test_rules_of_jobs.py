"""Each condition of each step in the life of a job: who holds it, when it is due, what is kept, who is told."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
import redis
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import DiskFull, IllegalTransition, LeaseLost, NotFound, RegistryUnavailable
from lifecycle.jobs import access, broker, handlers, kinds, queries, running, schedule, services, steering
from lifecycle.jobs.broker import waiting  # the tests of the sweep replace it
from lifecycle.jobs.kinds import Kind, kind_called
from lifecycle.jobs.models import Job, JobLogLine, ScheduleSlot
from lifecycle.jobs.services import wake  # the tests of all others list wake-ups in its place

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _empty_queues(monkeypatch):
    monkeypatch.setattr(broker, "waiting", lambda queues: {})


@pytest.fixture
def told(monkeypatch):
    """The jobs of which the rest of the code was told that they ended without success."""
    found = []
    monkeypatch.setitem(kinds._GAVE_UP, "crawl", lambda job: found.append((job.pk, job.state, job.last_error)))
    return found


def queued(kind="crawl", **more):
    return services.queue(kind_called(kind), **({"subject_id": 1, "actor": system_user()} | more))


def held(**more):
    return services.claim(queued(**more).pk, worker="w")


def stored(job):
    return Job.objects.get(pk=job.pk)


def near(moment, wanted):
    return moment is not None and abs(moment - wanted) < timedelta(seconds=20)


# --- Who holds a job ----------------------------------------------------------------------------------------------

OF_THE_HOLDER = {
    "renew": services.renew,
    "lock": transaction.atomic(services.lock_held),
    "progress": lambda job: services.report_progress(job, 1, 2, "x"),
    "succeed": services.succeed,
    "fail": lambda job: services.fail(job, code="x", message="x", is_transient=True),
    "fail for good": lambda job: services.fail(job, code="x", message="x", is_transient=False),
    "postpone": lambda job: services.postpone(job, seconds=1, why="x"),
    "fence": lambda job: handlers.JobRun(job).fenced().__enter__(),
}
LOST = {
    "another claim": {"fence": F("fence") + 1},
    "released": {"state": "waiting", "lease_until": None},
    "cancelled": {"state": "cancelled", "lease_until": None, "finished_at": timezone.now()},
}


@pytest.mark.parametrize("act", OF_THE_HOLDER.values(), ids=OF_THE_HOLDER)
@pytest.mark.parametrize("change", LOST.values(), ids=LOST)
def test_who_lost_a_job_changes_nothing(act, change):
    job, other = held(), held()  # the other one runs, with the same fence
    Job.objects.filter(pk=job.pk).update(**change)
    before = [Job.objects.filter(pk=each.pk).values().get() for each in (job, other)]
    with pytest.raises(LeaseLost):
        act(job)
    assert not services.extend_lease(job)
    assert [Job.objects.filter(pk=each.pk).values().get() for each in (job, other)] == before


@pytest.mark.parametrize("act", OF_THE_HOLDER.values(), ids=OF_THE_HOLDER)
def test_who_holds_a_job_changes_only_this_one(act):
    job, other = held(), held()
    before = Job.objects.filter(pk=other.pk).values().get()
    act(job)
    assert Job.objects.filter(pk=other.pk).values().get() == before


def test_lease_is_extended_by_its_whole_length(settings):
    settings.JOB_LEASE_S = 500
    job = held()
    assert near(job.lease_until, timezone.now() + timedelta(seconds=500))
    for extend in (services.renew, services.extend_lease, lambda job: handlers.JobRun(job).check()):
        Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())
        extend(job)
        assert near(stored(job).lease_until, timezone.now() + timedelta(seconds=500))
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())
    with handlers.JobRun(job).fenced() as row:
        assert (row.pk, row.fence) == (job.pk, job.fence)
    assert near(stored(job).lease_until, timezone.now() + timedelta(seconds=500))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lock", [services.lock_held, lambda job: access.lock_job(system_user(), job.pk)])
def test_locked_job_waits_for_its_transaction(lock, in_other_connection):
    job = held()
    with transaction.atomic():
        lock(job)
        with pytest.raises(OperationalError, match="lock timeout"):
            in_other_connection(lambda: services.succeed(job))
    in_other_connection(lambda: services.succeed(job))
    assert stored(job).state == "succeeded"


def test_run_shows_its_progress_and_log():
    job = held()
    run = handlers.JobRun(job)
    run.progress(3, text="three")
    assert (stored(job).progress_done, stored(job).progress_total, stored(job).progress_text) == (3, None, "three")
    run.progress(4, 9)
    assert (stored(job).progress_done, stored(job).progress_total, stored(job).progress_text) == (4, 9, "")
    run.log("a\nb" + "x" * 3000)
    assert [(line.job_id, len(line.text)) for line in JobLogLine.objects.order_by("pk")] == [
        (job.pk, 1),
        (job.pk, 2000),
    ]


# --- Queue and claim ----------------------------------------------------------------------------------------------


def test_queued_job_keeps_what_it_was_given():
    later = timezone.now() + HOUR
    kim = User.objects.create(username="kim")
    job = queued(
        subject_id=7, actor=kim, payload={"a": 1}, priority=3, dedupe_key="k", not_before=later, max_attempts=2
    )
    row = stored(job)
    assert (row.kind, row.subject_id, row.actor, row.payload, row.priority, row.dedupe_key, row.not_before,
            row.max_attempts, row.state, row.attempts, row.fence) == (
        "crawl", 7, kim, {"a": 1}, 3, "k", later, 2, "waiting", 0, 0)  # fmt: skip
    plain = stored(queued())
    assert (plain.payload, plain.priority, plain.dedupe_key, plain.not_before, plain.max_attempts) == (
        {},
        0,
        "",
        None,
        5,
    )
    assert queued().pk != plain.pk  # without a key, nothing is the same work


def test_key_is_for_one_kind_and_for_waiting_jobs():
    job = queued(dedupe_key="k")
    assert queued("scan", dedupe_key="k").pk != job.pk
    assert queued(dedupe_key="other").pk != job.pk
    assert queued(dedupe_key="k", not_before=timezone.now() + HOUR).pk == job.pk
    services.claim(job.pk, worker="w")
    assert queued(dedupe_key="k").pk != job.pk


def test_key_whose_job_is_claimed_meanwhile_gets_a_new_job(monkeypatch):
    create, calls = Job.objects.create, []

    def late(**values):
        calls.append(values)
        if len(calls) == 1:
            raise IntegrityError
        return create(**values)

    monkeypatch.setattr(Job.objects, "create", late)
    later = timezone.now() + HOUR
    given = {"subject_id": 9, "payload": {"a": 1}, "priority": 2, "not_before": later, "max_attempts": 4}
    job = queued(dedupe_key="k", **given)
    assert calls[0] == calls[1]
    assert {name: getattr(stored(job), name) for name in given} == given


def test_error_that_is_not_about_the_key_is_raised(monkeypatch):
    def refuse(**values):
        raise IntegrityError("another one")

    monkeypatch.setattr(Job.objects, "create", refuse)
    with pytest.raises(IntegrityError, match="another one"):
        queued()


def test_wake_up_is_sent_for_what_is_due_now(wake_ups, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        job, _later = queued("scan"), queued(not_before=timezone.now())
        assert wake_ups == []
    assert wake_ups == [(job.pk, "scan")]


def test_broker_that_is_away_is_not_asked_for_a_moment(monkeypatch):
    sent, is_away, clock = [], [True], [100.0]

    def send_task(*call, **options):
        sent.append((call, options))
        if is_away[0]:
            raise ConnectionError("away")

    monkeypatch.setattr(services, "current_app", SimpleNamespace(send_task=send_task))
    monkeypatch.setattr(services, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    call = ((kinds.WAKE_UP, (7,)), {"queue": "scan", "retry": False})
    wake(7, "scan")
    assert sent == [call]
    is_away[0] = False
    clock[0] += services.BROKER_PAUSE_S - 0.1
    wake(7, "scan")
    assert sent == [call]
    clock[0] += 0.1
    wake(7, "scan")
    wake(7, "scan")
    assert sent == [call] * 3


@pytest.mark.parametrize(
    ("change", "is_claimed"),
    [
        ({}, True),
        ({"not_before": timezone.now() - HOUR}, True),
        ({"not_before": timezone.now() + HOUR}, False),
        ({"state": "running", "lease_until": timezone.now() - HOUR}, True),
        ({"state": "running", "lease_until": timezone.now() + HOUR}, False),
        ({"state": "failed", "finished_at": timezone.now()}, False),
        ({"state": "cancelled", "finished_at": timezone.now()}, False),
        ({"state": "succeeded", "finished_at": timezone.now()}, False),
        ({"attempts": 4}, True),
        ({"attempts": 5}, False),
    ],
)
def test_only_a_job_that_is_due_or_dead_is_claimed(change, is_claimed, settings):
    other, job = queued(), queued()
    Job.objects.filter(pk=job.pk).update(**change)
    before = stored(job)
    got = services.claim(job.pk, worker="me")
    if is_claimed:
        assert got == job
        assert (got.state, got.fence, got.attempts, got.worker, got.not_before) == (
            "running", before.fence + 1, before.attempts + 1, "me", None)  # fmt: skip
        assert near(got.started_at, timezone.now())
        assert near(got.lease_until, timezone.now() + timedelta(seconds=settings.JOB_LEASE_S))
    else:
        assert got is None
        assert (stored(job).fence, stored(job).attempts) == (before.fence, before.attempts)
    assert stored(other).state == "waiting"


@pytest.mark.parametrize(("last", "words"), [("", "The worker died in every attempt."), ("It hung.", "It hung.")])
def test_job_whose_worker_died_in_each_attempt_fails(last, words, told):
    job = queued(max_attempts=2)
    Job.objects.update(attempts=2, last_error=last)
    assert services.claim(job.pk, worker="w") is None
    row = stored(job)
    assert (row.state, row.error_code, row.last_error, row.lease_until) == ("failed", "attempts_used", words, None)
    assert near(row.finished_at, timezone.now())
    assert told == [(job.pk, "failed", words)]


# --- How an attempt ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempt", "pause_s"), [(1, 2), (2, 5), (3, 15), (4, 60), (5, 300), (6, 300), (9, 300)])
def test_pause_grows_with_attempts(attempt, pause_s):
    job = held(max_attempts=10, dedupe_key="k")
    Job.objects.update(attempts=attempt)
    before = timezone.now()
    assert services.fail(job, code="away", message="No answer.", is_transient=True) is False
    row = stored(job)
    assert (row.state, row.lease_until, row.dedupe_key, row.error_code, row.last_error, row.attempts) == (
        "waiting", None, "", "away", "No answer.", attempt)  # fmt: skip
    assert abs((row.not_before - before).total_seconds() - pause_s) < 1.5


@pytest.mark.parametrize(("attempts", "is_transient", "is_over"), [(4, True, False), (5, True, True), (1, False, True)])
def test_attempt_is_the_last_one(attempts, is_transient, is_over):
    job = held(dedupe_key="k")
    Job.objects.update(attempts=attempts)
    assert services.fail(job, code="x", message="y", is_transient=is_transient) is is_over
    row = stored(job)
    assert (row.state, row.finished_at is not None) == (("failed", True) if is_over else ("waiting", False))


def test_postponed_job_gives_its_attempt_back():
    job = held()
    Job.objects.update(attempts=3, error_code="old")
    before = timezone.now()
    services.postpone(job, seconds=100, why="Not yet.")
    row = stored(job)
    assert (row.state, row.attempts, row.error_code, row.last_error) == ("waiting", 2, "", "Not yet.")
    assert abs((row.not_before - before).total_seconds() - 100) < 1.5
    assert handlers.Postponed("x").seconds == 2


@pytest.mark.parametrize(
    ("error", "code", "words", "state"),
    [
        (RegistryUnavailable("No answer."), "registry_unavailable", "No answer.", "waiting"),
        (DiskFull("No space."), "disk_full", "No space.", "waiting"),
        (ValueError("a bug"), "crashed", "ValueError: a bug", "waiting"),
        (OperationalError("lock timeout"), "database_unavailable", "lock timeout", "waiting"),
        (NotFound("Gone."), "not_found", "Gone.", "failed"),
        (LeaseLost("Lost."), "", "", "running"),
    ],
)
def test_error_of_a_handler_becomes_the_state(told, error, code, words, state):
    def fail(run):
        raise error

    job = queued()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(handlers._HANDLERS, "crawl", fail)
        running.run(job.pk)
    row = stored(job)
    assert (row.error_code, row.last_error, row.attempts) == (code, words, 1)
    assert row.state == state
    assert told == ([(job.pk, "failed", words)] if state == "failed" else [])


def test_lease_is_renewed_while_the_handler_works(monkeypatch, settings):
    settings.JOB_LEASE_S = 0.06
    renewed = []
    monkeypatch.setattr(services, "renew", lambda job: renewed.append(job.pk))
    with running._heartbeat(SimpleNamespace(pk=7)):
        limit = timezone.now() + timedelta(seconds=10)
        while len(renewed) < 3 and timezone.now() < limit:
            pass
    assert renewed[:3] == [7, 7, 7]
    count = len(renewed)
    settings.JOB_LEASE_S = 3600
    with running._heartbeat(SimpleNamespace(pk=7)):
        pass
    assert len(renewed) == count


@pytest.mark.parametrize(("error", "count"), [(LeaseLost("x"), 1), (OperationalError("x"), 3)])
def test_heartbeat_ends_with_the_lease_and_outlives_the_database(monkeypatch, settings, error, count):
    settings.JOB_LEASE_S = 0.03
    tried = []

    def renew(job):
        tried.append(1)
        raise error

    monkeypatch.setattr(services, "renew", renew)
    with running._heartbeat(SimpleNamespace(pk=7)):
        limit = timezone.now() + timedelta(seconds=0.3 if count == 1 else 10)
        while len(tried) < 3 and timezone.now() < limit:
            pass
    assert len(tried) == count if count == 1 else len(tried) >= count


# --- What the sweep and the schedules find ------------------------------------------------------------------------

OLD = -HOUR  # from the moment of the test, which can run minutes after its module is read


@pytest.mark.parametrize(
    ("change", "is_woken"),
    [
        ({"created_at": OLD}, True),
        ({}, False),  # its first wake-up is on the way
        ({"not_before": OLD}, True),  # it had none
        ({"created_at": OLD, "not_before": HOUR}, False),
        ({"created_at": OLD, "hinted_at": timedelta(0)}, False),
        ({"created_at": OLD, "hinted_at": OLD}, True),
        ({"state": "running", "lease_until": OLD}, True),
        ({"state": "running", "lease_until": HOUR, "created_at": OLD}, False),
        ({"state": "failed", "finished_at": OLD, "created_at": OLD}, False),
    ],
)
def test_sweep_wakes_what_is_due_and_was_not_woken_lately(change, is_woken, wake_ups, settings):
    settings.JOB_SWEEP_S = 60
    job = queued("scan")
    now = timezone.now()
    Job.objects.update(**{k: now + v if isinstance(v, timedelta) else v for k, v in change.items()})
    assert services.sweep() == int(is_woken)
    assert wake_ups == ([(job.pk, "scan")] if is_woken else [])
    assert near(stored(job).hinted_at, timezone.now()) or not is_woken


def test_sweep_takes_the_most_urgent_ones_up_to_its_limit(wake_ups):
    low, first, second = queued(), queued(priority=5), queued(priority=5)
    Job.objects.update(created_at=timezone.now() + OLD)
    assert services.sweep(limit=2) == 2
    assert [pk for pk, _ in wake_ups] == [first.pk, second.pk]
    assert stored(low).hinted_at is None


def test_copy_of_a_job_has_all_that_it_had():
    job = queued(subject_id=4, payload={"a": 1}, priority=2, max_attempts=3, actor=User.objects.create(username="kim"))
    again = stored(services.queue_again(job))
    names = ("kind", "subject_id", "payload", "priority", "max_attempts", "actor")
    assert [getattr(again, name) for name in names] == [getattr(job, name) for name in names]
    assert again.dedupe_key == f"retry:{job.pk}"
    keyed = queued(dedupe_key="k")
    services.claim(keyed.pk, worker="w")
    assert services.queue_again(stored(keyed)).dedupe_key == "k"


@pytest.mark.parametrize(("days", "is_kept"), [(29.9, True), (30.1, False)])
def test_tidy_deletes_what_ended_long_ago(days, is_kept):
    job = held()
    services.append_log(job, "line")
    services.succeed(job)
    waits = queued()
    ScheduleSlot.objects.create(schedule="x", slot=1)
    at = timezone.now() - timedelta(days=days)
    Job.objects.update(created_at=at)
    Job.objects.filter(pk=job.pk).update(finished_at=at)
    ScheduleSlot.objects.update(at=at)
    schedule.tidy()
    assert Job.objects.filter(pk=job.pk).exists() is is_kept
    assert JobLogLine.objects.exists() is is_kept
    assert ScheduleSlot.objects.exists() is is_kept
    assert Job.objects.filter(pk=waits.pk).exists()


# --- Users --------------------------------------------------------------------------------------------------------


@pytest.fixture
def people():
    return {
        "own": User.objects.create(username="kim"),
        "other": User.objects.create(username="lee"),
        "admin": User.objects.create(username="ada", is_superuser=True),
        "gone": User.objects.create(username="old", is_superuser=True, is_active=False),
        "system": system_user(),
    }


@pytest.mark.parametrize(
    ("who", "sees"), [("own", True), ("other", False), ("admin", True), ("gone", False), ("system", True)]
)
def test_job_is_seen_and_locked_by_its_actor_and_admins(who, sees, people):
    other, job = queued(actor=people["system"]), queued(actor=people["own"])
    actor = people[who]
    assert queries.jobs_visible_to(actor).filter(pk=job.pk).exists() is sees
    for find in (access.job_for, access.lock_job):
        if sees:
            assert find(actor, job.pk) == job
        else:
            with pytest.raises(NotFound):
                find(actor, job.pk)
        with pytest.raises(NotFound):
            find(actor, other.pk + 1000)


@pytest.mark.parametrize("state", Job.State)
def test_only_live_jobs_are_cancelled_and_only_ended_ones_retried(state, told, people):
    job = queued(actor=people["own"], subject_id=3)
    ends = {"finished_at": timezone.now() + OLD} if state in {"succeeded", "failed", "cancelled"} else {}
    lease = {"lease_until": timezone.now() + OLD} if state == "running" else {}
    Job.objects.update(state=state, **ends, **lease)
    if state in {"waiting", "running"}:
        assert steering.why_not_cancelled(stored(job)) is None
        done = steering.cancel(job.pk, actor=people["own"])
        assert (done.state, done.error_code, done.last_error) == ("cancelled", "cancelled", "Cancelled by kim.")
        assert (stored(job).state, stored(job).lease_until) == ("cancelled", None)
        assert told == [(job.pk, "cancelled", "Cancelled by kim.")]
        event = AuditEvent.objects.get(action="job.cancelled")
        assert (event.actor, event.details["kind"], event.details["before"]) == (
            people["own"], "crawl", {"state": state})  # fmt: skip
    else:
        with pytest.raises(IllegalTransition, match=f"already {state}"):
            steering.cancel(job.pk, actor=people["own"])
        assert told == []
    Job.objects.update(state=state, lease_until=lease.get("lease_until"), finished_at=ends.get("finished_at"))
    if state in {"failed", "cancelled"}:
        assert steering.why_not_retried(stored(job)) is None
        again = steering.retry(job.pk, actor=people["own"])
        assert (again.subject_id, again.actor, again.state) == (3, people["own"], "waiting")
        event = AuditEvent.objects.get(action="job.retried")
        assert (event.actor, event.details) == (people["own"], {"kind": "crawl", "again": again.pk})
    else:
        with pytest.raises(IllegalTransition, match="Only failed or cancelled"):
            steering.retry(job.pk, actor=people["own"])
    with pytest.raises(NotFound):
        steering.retry(job.pk, actor=people["other"])


def test_kind_that_says_why_not_is_neither_cancelled_nor_retried(monkeypatch):
    strict = Kind("crawl", "ingest", "x", why_not_cancelled="It would leave half.", why_not_retried="Do it there.")
    monkeypatch.setitem(kinds._KINDS, "crawl", strict)
    job = queued()
    with pytest.raises(IllegalTransition, match="It would leave half"):
        steering.cancel(job.pk, actor=system_user())
    Job.objects.update(state="failed", finished_at=timezone.now() + OLD)
    with pytest.raises(IllegalTransition, match="Do it there"):
        steering.retry(job.pk, actor=system_user())


# --- Registers and Redis ------------------------------------------------------------------------------------------


def test_registers_of_kinds_and_handlers(monkeypatch):
    monkeypatch.setattr(kinds, "_KINDS", {})
    monkeypatch.setattr(kinds, "_GAVE_UP", {})
    monkeypatch.setattr(handlers, "_HANDLERS", {})
    made = [kinds.register(Kind(name, queue, "x", is_cancellable=True)) for name, queue in (
        ("b", "scan"), ("z", "own"), ("a", "scan"), ("c", "ingest"))]  # fmt: skip
    with pytest.raises(ValueError, match="already registered"):
        kinds.register(made[0])
    assert kinds.names() == ["c", "a", "b", "z"]
    assert kinds.kinds_in(["scan", "own"]) == ["b", "z", "a"]
    assert kinds.kind_called("a") is made[2]
    for wrong in ({}, {"is_cancellable": True, "why_not_cancelled": "x"}):
        with pytest.raises(ValueError, match="set either"):
            Kind("d", "scan", "x", **wrong)
    told = []

    def act(run):
        raise NotImplementedError

    assert handlers.handler(made[0], gave_up=told.append)(act) is act
    assert handlers.handler(made[1])(act) is act
    assert handlers.handler_of("b") is act
    for name in ("b", "z"):
        kinds.gave_up(Job(kind=name))
    assert [job.kind for job in told] == ["b"]
    assert made[0].subjects([], None) == {}


def test_jobs_of_a_subject_and_running_ones():
    first, _other, third = queued(subject_id=5), queued(subject_id=6), queued(subject_id=5)
    queued("scan", subject_id=5)
    assert list(queries.jobs_of("crawl", 5)) == [third, first]
    services.claim(third.pk, worker="w")
    assert list(queries.running()) == [third]


def test_lengths_of_queues_are_read_together_and_nothing_is_known_without_redis(monkeypatch):
    closed, lengths = [], {"a": 3, "b": 0}

    class Pipe:
        def __init__(self):
            self.names = []

        def llen(self, name):
            self.names.append(name)

        def execute(self):
            if lengths is None:
                raise redis.ConnectionError("away")
            return [lengths[name] for name in self.names]

    client = SimpleNamespace(pipeline=lambda transaction: Pipe(), close=lambda: closed.append(1))
    monkeypatch.setattr(redis.Redis, "from_url", lambda *_args, **_more: client)
    assert waiting(iter(["b", "a", "b"])) == {"a": 3, "b": 0}
    assert closed == [1]
    lengths = None
    assert waiting(["a"]) == {}
    assert closed == [1, 1]
