"""Deadlines, reminders, superseded requests, and promotions that run without a user: by the database's clock, once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition
from lifecycle.environments.models import Environment, Slot
from lifecycle.jobs.models import Job
from lifecycle.promotion import automation, marking, places, services
from lifecycle.promotion.automatic import why_not_automatic
from lifecycle.promotion.environments import change_environment
from lifecycle.promotion.holds import lift_hold, put_hold
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.opening import create_window
from lifecycle.quarantine.services import quarantine
from tests.factories import dock as rows
from tests.factories import people
from tests.racing import Race

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def count(action):
    return AuditEvent.objects.filter(action=f"promotion.{action}").count()


def state(request):
    request.refresh_from_db()
    return request.state


def ask(dock, number, *, actor=None, environment=None):
    """Return a request for another image of shop/api that has been in dev."""
    image = rows.image(f"build {number}", layers=1, scanned_at=clock.now(), package_count=1)
    rows.push(dock.repository, image, f"1.{number}")
    PromotionRequest.objects.create(
        image=image, repository=dock.repository, environment=dock.dev, tag="x", state=State.SUCCEEDED, reason="x",
        requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
    )  # fmt: skip
    where = environment or dock.staging
    return services.request_promotion(
        dock.repository, image.digest, where, actor=actor or dock.requester, reason="release"
    )


def ready(dock, number, **more):
    made = ask(dock, number, **more)
    return services.approve(made.pk, actor=dock.approver)


@pytest.fixture
def automatic(dock):
    Environment.objects.update(auto_execute=True)
    dock.staging.refresh_from_db()


@pytest.mark.usefixtures("automatic")
def test_request_runs_as_soon_as_it_is_ready(dock, django_capture_on_commit_callbacks):
    made = ask(dock, 1)
    with django_capture_on_commit_callbacks(execute=True):
        services.approve(made.pk, actor=dock.approver)
    assert state(made) == State.EXECUTING


@pytest.fixture
def latest_wins(dock):
    Environment.objects.update(queue_policy="latest-wins")
    dock.staging.refresh_from_db()


def test_vote_after_the_time_to_approve_is_refused_and_the_request_expires(dock, request_):
    PromotionRequest.objects.update(approve_by=timezone.now() - timedelta(seconds=1))
    for act in (services.approve, services.reject, services.object_to):
        with pytest.raises(IllegalTransition, match="is over"):
            act(request_.pk, actor=dock.approver, reason="late")
    assert state(request_) == State.OPEN
    services.expire_due()
    assert state(request_) == State.EXPIRED
    assert AuditEvent.objects.get(action="promotion.expired").reason == "approve_by"


def test_what_becomes_possible_after_the_time_to_approve_is_not_ready(dock, request_):
    dock.staging.required_approvals = 0
    dock.staging.save()
    PromotionRequest.objects.update(approve_by=timezone.now() - timedelta(seconds=1), judged_at=None)
    services.judge_open()
    assert state(request_) == State.OPEN


def test_each_deadline_is_reminded_of_once(dock, request_):
    assert automation.remind_due() == 0
    PromotionRequest.objects.filter(pk=request_.pk).update(approve_by=timezone.now() + timedelta(hours=3))
    PromotionRequest.objects.filter(pk=request_.pk).update(created_at=timezone.now() - timedelta(days=6))
    assert [automation.remind_due(), automation.remind_due()] == [1, 0]
    assert AuditEvent.objects.get(action="promotion.reminded").details["deadline"] == "approval"
    services.approve(request_.pk, actor=dock.approver)
    assert automation.remind_due() == 0
    PromotionRequest.objects.filter(pk=request_.pk).update(
        decided_at=timezone.now() - timedelta(hours=1), execute_by=timezone.now() + timedelta(minutes=1)
    )
    assert [automation.remind_due(), automation.remind_due()] == [1, 0]
    assert count("reminded") == 2


@pytest.mark.usefixtures("latest_wins")
def test_newer_ready_request_of_a_robot_supersedes_at_once_and_of_a_person_after_notice(dock):
    robot = people.robot(dock.team, "owner", maker=dock.owner).user
    by_robot, by_person = ask(dock, 1, actor=robot), ask(dock, 2)
    newest = ask(dock, 3)
    assert automation.supersede_older() == 0  # it is not ready yet
    services.approve(newest.pk, actor=dock.approver)
    assert automation.supersede_older() == 2
    assert (state(by_robot), by_robot.superseded_by) == (State.SUPERSEDED, newest)
    assert (state(by_person), by_person.superseded_by) == (State.OPEN, newest)
    page = Client()
    page.force_login(dock.requester, backend=BACKEND)
    text = page.get(reverse("lifecycle:promotion", args=[by_person.pk])).content.decode()
    assert f"{newest}</a> is newer" in " ".join(text.split())
    assert automation.supersede_older() == 0
    PromotionRequest.objects.filter(pk=by_person.pk).update(supersede_at=timezone.now() - timedelta(seconds=1))
    assert automation.supersede_older() == 1
    assert (state(by_person), state(newest)) == (State.SUPERSEDED, State.READY)
    assert (count("superseding"), count("superseded")) == (1, 2)


@pytest.mark.usefixtures("latest_wins")
def test_notice_ends_when_the_newer_request_is_not_ready_any_more(dock):
    older, newer = ask(dock, 1), ready(dock, 2)
    automation.supersede_older()
    services.object_to(newer.pk, actor=dock.second, reason="no")
    assert automation.supersede_older() == 1
    assert (state(older), older.supersede_at, older.superseded_by) == (State.OPEN, None, None)


@pytest.mark.parametrize("kind", ["rollback", "break-glass"])
@pytest.mark.usefixtures("latest_wins")
def test_rollback_and_break_glass_are_never_superseded(dock, kind):
    older = ask(dock, 1)
    PromotionRequest.objects.filter(pk=older.pk).update(kind=kind)
    ready(dock, 2)
    assert automation.supersede_older() == 0


def test_queue_keeps_older_requests(dock):
    ask(dock, 1)
    ready(dock, 2)
    assert automation.supersede_older() == 0


@pytest.mark.usefixtures("automatic")
def test_ready_request_runs_without_a_user_once(dock, request_):
    assert automation.run_automatically() == 0
    services.approve(request_.pk, actor=dock.approver)
    assert [automation.run_automatically(), automation.run_automatically()] == [1, 0]
    assert (state(request_), request_.executed_by.username) == (State.EXECUTING, services.system_user().username)
    assert Job.objects.filter(kind="promote", subject_id=request_.pk).count() == 1


def test_nothing_runs_without_a_user_unless_the_environment_says_so(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    assert automation.run_automatically() == 0
    request_.refresh_from_db()
    assert why_not_automatic(request_) == "staging runs nothing without a user."


@pytest.mark.usefixtures("automatic")
def test_hold_of_automatic_runs_and_closed_window_say_why_not(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    request_.refresh_from_db()
    hold = put_hold(actor=dock.owner, reason="rolled back", team="shop", environment="staging", scope="auto")
    assert why_not_automatic(request_) == "Held by owner: rolled back"
    with pytest.raises(IllegalTransition, match="Held by owner"):
        services.execute(request_.pk, actor=services.system_user())
    assert automation.run_automatically() == 0
    lift_hold(hold.pk, actor=dock.owner)
    create_window(
        actor=dock.owner, name="sale", kind="freeze", starts_at="2026-01-01T00:00", duration_s=86_400,
        time_zone="UTC", rule="FREQ=DAILY", team="shop",
    )  # fmt: skip
    assert "Freeze: sale." in why_not_automatic(request_)
    assert automation.run_automatically() == 0
    client = Client()
    client.force_login(dock.deployer, backend=BACKEND)
    assert "sale" in client.get(f"/api/v1/promotions/{request_.pk}/").json()["why_not_automatic"]


@pytest.mark.usefixtures("automatic")
def test_queue_runs_in_the_order_of_readiness_and_after_a_failure_a_user_runs_it(dock):
    later, first = ask(dock, 1), ready(dock, 2)
    services.approve(later.pk, actor=dock.approver)
    later.refresh_from_db()
    assert why_not_automatic(later) == f"{first} was ready before and runs first."
    assert automation.run_automatically() == 1
    assert (state(first), state(later)) == (State.EXECUTING, State.READY)
    assert why_not_automatic(later) == f"{first} is running."
    services.fail(first, why="No answer.", is_technical=True)
    first.refresh_from_db()
    assert why_not_automatic(first) == "The last run failed, so a user must run it again."
    assert automation.run_automatically() == 1
    assert (state(first), state(later)) == (State.READY, State.EXECUTING)


@pytest.mark.usefixtures("automatic", "latest_wins")
def test_latest_runs_and_older_ones_wait_to_be_superseded(dock):
    older, newer = ready(dock, 1), ready(dock, 2)
    assert why_not_automatic(older) == f"{newer} is newer, and the latest wins here."
    assert automation.run_automatically() == 1
    assert (state(older), state(newer)) == (State.READY, State.EXECUTING)


@pytest.mark.usefixtures("automatic")
def test_automatic_run_judges_again(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    package = rows.package("libssl3", "3.0.11-1", source="openssl")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "critical", package)
    assert automation.run_automatically() == 0
    assert not Slot.objects.filter(image=dock.image, environment=dock.staging).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("automatic")
def test_scheduler_and_users_at_once_start_one_run(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    race = Race(*[automation.run_automatically] * 4, *[lambda: services.execute(request_.pk, actor=dock.deployer)] * 46)
    assert len(race.refused) in {45, 46}  # a tick that came too late returns 0 and refuses nobody
    assert (count("executing"), Job.objects.filter(kind="promote").count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("latest_wins")
def test_two_tickers_supersede_once(dock):
    robot = people.robot(dock.team, "owner", maker=dock.owner).user
    older = ask(dock, 1, actor=robot)
    ready(dock, 2)
    Race(*[automation.supersede_older] * 8)
    assert (state(older), count("superseded")) == (State.SUPERSEDED, 1)


def test_whoever_makes_many_requests_due_locks_them_in_the_order_of_their_ids(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    covering = quarantine(request_.image.digest, actor=dock.owner, reason="stolen keys")
    acts = [
        lambda: marking.mark_for_judgement([dock.approver.pk]),
        lambda: marking.mark_for_quarantine(covering.pk),
        lambda: marking.mark_for_policy(dock.team.pk, dock.staging.pk),
        lambda: places.judge_again(dock.team, None),
        lambda: change_environment(dock.staging.pk, actor=dock.owner, approve_within_s=864_000),
    ]
    for act in acts:
        PromotionRequest.objects.update(judged_at=clock.now())
        with CaptureQueriesContext(connection) as queries:
            act()
        request_.refresh_from_db()
        assert request_.judged_at is None
        written = [each["sql"] for each in queries if "lifecycle_promotionrequest" in each["sql"]]
        assert written[-1].startswith("UPDATE")
        assert written[-2].startswith('SELECT "lifecycle_promotionrequest"."id" AS "pk" FROM')
        assert written[-2].endswith("ORDER BY 1 ASC FOR UPDATE")
