"""Verification after the copy: by a person, or by a service with a signed reply; then succeeded or failed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotPermitted
from lifecycle.core.signed_replies import signed_headers
from lifecycle.environments.models import Environment, Occupancy, Slot
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.promotion import services
from lifecycle.promotion.environments import change_environment
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.rollback import request_rollback
from lifecycle.promotion.verification import confirm, fail_overdue
from tests.factories import dock as rows
from tests.fakes.signing_service import KEY, SECRET
from tests.racing import Race

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def manual(dock):
    change_environment(dock.staging.pk, actor=dock.owner, verification="manual")
    dock.staging.refresh_from_db()


def copied(dock, request):
    """Return the request after its copy is complete and checked."""
    services.approve(request.pk, actor=dock.approver)
    services.execute(request.pk, actor=dock.deployer)
    services.verify(request)
    services.succeed(request)
    request.refresh_from_db()
    return request


def earlier(dock):
    """Say that another image was in staging before, and return it."""
    before = rows.image("before", layers=1, scanned_at=clock.now(), package_count=1)
    rows.push(dock.repository, before, "0.9")
    PromotionRequest.objects.create(
        image=before, repository=dock.repository, environment=dock.staging, tag="0.9", state=State.SUCCEEDED,
        reason="x", requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
    )  # fmt: skip
    return before


def state(request):
    request.refresh_from_db()
    return request.state


def test_without_verification_a_checked_copy_has_succeeded(dock, request_):
    assert copied(dock, request_).state == State.SUCCEEDED


@pytest.mark.usefixtures("manual")
def test_person_verifies_and_the_environment_holds_the_image_meanwhile(dock, request_):
    copied(dock, request_)
    assert (request_.state, request_.verify_by is not None) == (State.VERIFYING, True)
    assert Slot.objects.get(environment=dock.staging).image == dock.image
    assert Occupancy.objects.get(ended_at=None).image == dock.image
    services.succeed(request_)  # a worker that runs the last step twice
    assert (state(request_), Occupancy.objects.count()) == (State.VERIFYING, 1)
    for actor in (dock.approver, dock.requester):
        with pytest.raises(NotPermitted):
            confirm(request_.pk, actor=actor, is_good=True, comment="works")
    with pytest.raises(Malformed):
        confirm(request_.pk, actor=dock.deployer, is_good=True, comment=" ")
    confirm(request_.pk, actor=dock.deployer, is_good=True, comment="Checkout works.")
    assert (state(request_), request_.verify_by) == (State.SUCCEEDED, None)
    assert AuditEvent.objects.get(action="promotion.succeeded").reason == "deployer: Checkout works."
    with pytest.raises(IllegalTransition):
        confirm(request_.pk, actor=dock.deployer, is_good=False, comment="again")


@pytest.mark.usefixtures("manual")
def test_verifying_holds_the_slot_against_forward_requests_only(dock, request_):
    before = earlier(dock)
    copied(dock, request_)
    other = rows.image("other", layers=1, scanned_at=clock.now(), package_count=1)
    rows.push(dock.repository, other, "2.0")
    Slot.objects.filter(environment=dock.dev).update(image=other)
    newer = services.request_promotion(dock.repository, other.digest, dock.staging, actor=dock.requester, reason="x")
    services.approve(newer.pk, actor=dock.approver)
    with pytest.raises(Conflict, match="is running"):
        services.execute(newer.pk, actor=dock.deployer)
    back = request_rollback(dock.repository, dock.staging, actor=dock.deployer, reason="broken")
    assert back.image == before
    services.approve(back.pk, actor=dock.approver)
    services.execute(back.pk, actor=dock.deployer)
    assert state(request_) == State.FAILED
    with pytest.raises(IllegalTransition):
        confirm(request_.pk, actor=dock.deployer, is_good=True, comment="late")


@pytest.mark.usefixtures("manual")
@pytest.mark.parametrize("rolls_back", [True, False])
def test_failed_verification_requests_a_rollback_where_the_environment_says_so(dock, request_, rolls_back):
    before = earlier(dock)
    Environment.objects.update(rolls_back=rolls_back)
    copied(dock, request_)
    confirm(request_.pk, actor=dock.deployer, is_good=False, comment="Checkout is down.")
    assert state(request_) == State.FAILED
    assert request_.failure == "The verification failed: deployer: Checkout is down."
    made = PromotionRequest.objects.filter(kind="rollback")
    assert [row.image for row in made] == ([before] if rolls_back else [])


@pytest.mark.usefixtures("manual")
def test_nothing_to_go_back_to_is_said_and_a_rollback_is_never_rolled_back(dock, request_):
    Environment.objects.update(rolls_back=True)
    copied(dock, request_)
    confirm(request_.pk, actor=dock.deployer, is_good=False, comment="down")
    assert state(request_) == State.FAILED
    assert "No rollback was requested: No earlier image was promoted to staging." in request_.failure


@pytest.mark.usefixtures("manual")
def test_promotion_that_nobody_verified_fails_by_the_clock_of_the_database(dock, request_):
    copied(dock, request_)
    assert fail_overdue() == 0
    PromotionRequest.objects.filter(pk=request_.pk).update(verify_by=timezone.now() - timedelta(seconds=1))
    assert [fail_overdue(), fail_overdue()] == [1, 0]
    assert (state(request_), request_.failure) == (
        State.FAILED, "The verification failed: Nobody verified it in time.",
    )  # fmt: skip


@pytest.mark.usefixtures("manual")
def test_page_asks_who_may_verify(dock, request_):
    copied(dock, request_)
    page = reverse("lifecycle:promotion", args=[request_.pk])
    client, other = Client(), Client()
    client.force_login(dock.deployer, backend=BACKEND)
    other.force_login(dock.approver, backend=BACKEND)
    assert "It does not work" in client.get(page).content.decode()
    assert "It does not work" not in other.get(page).content.decode()
    assert client.post(page + "verify/", {"passed": "yes", "reason": ""}).status_code == 422
    assert client.post(page + "verify/", {"passed": "yes", "reason": "works"}).status_code == 302
    assert state(request_) == State.SUCCEEDED


@pytest.mark.parametrize(
    "settings_",
    [
        {"verification": "http"},
        {"verification": "http", "verify_url": "https://check.example.com/"},
        {"verification": "http", "verify_url": "ftp://x", "verify_secret": SECRET},
        {"verify_secret": "short"},
        {"verification": "prayer"},
        {"verify_within_s": 5},
    ],
)
def test_incomplete_verification_is_refused(dock, settings_):
    with pytest.raises(Malformed):
        change_environment(dock.staging.pk, actor=dock.owner, **settings_)


def test_secret_is_sealed_and_in_no_answer_and_no_audit_event(dock):
    change_environment(
        dock.staging.pk,
        actor=dock.owner,
        verification="http",
        verify_url="https://c.example.com/",
        verify_secret=SECRET,
    )
    stored = bytes(Environment.objects.get(pk=dock.staging.pk).verify_secret_sealed)
    event = AuditEvent.objects.filter(action="environment.changed").latest("pk")
    assert event.details["after"]["verify_secret"] == "changed"
    client = Client()
    client.force_login(dock.owner, backend=BACKEND)
    answers = [client.get(f"/api/v1/environments/{dock.staging.pk}/").content.decode(), str(event.details)]
    answers.append(client.get(reverse("lifecycle:environment", args=[dock.staging.pk])).content.decode())
    assert not [text for text in [*answers, stored.decode("latin-1")] if "dGhpcyBpcyBh" in text]


@pytest.fixture
def asked(dock, request_, service):
    """A copied promotion that the service must verify, and its job."""
    change_environment(
        dock.staging.pk, actor=dock.owner, verification="http", verify_url=f"http://{service.address}/check",
        verify_secret=SECRET,
    )  # fmt: skip
    request_.environment.refresh_from_db()
    copied(dock, request_)
    return Job.objects.get(kind="check")


@pytest.mark.django_db(transaction=True)
def test_service_answers_with_a_signed_reply(request_, service, asked):
    running.run(asked.pk)
    asked.refresh_from_db()
    assert (state(request_), asked.state) == (State.SUCCEEDED, "succeeded")
    assert service.calls == [(f"{request_.pk}-{asked.payload['fence']}", "")]  # our call was signed too
    assert AuditEvent.objects.get(action="promotion.succeeded").reason == "12 checks passed."


@pytest.mark.django_db(transaction=True)
def test_service_says_that_it_does_not_work(request_, service, asked):
    service.reply = lambda said: {"digest": said["digest"], "passed": False, "message": "502 from checkout."}
    running.run(asked.pk)
    assert (state(request_), request_.failure) == (State.FAILED, "The verification failed: 502 from checkout.")


SPOILED = {
    "no signature": lambda headers, body: ({**headers, "webhook-signature": ""}, body),
    "wrong key": lambda headers, body: (
        signed_headers(b"another", headers["webhook-id"], int(headers["webhook-timestamp"]), body), body,
    ),
    "another body": lambda headers, body: (headers, body.replace(b"12 checks", b"99 checks")),
    "another call": lambda headers, body: (
        signed_headers(KEY, "1-1000", int(headers["webhook-timestamp"]), body), body,
    ),
    "old": lambda headers, body: (
        signed_headers(KEY, headers["webhook-id"], int(headers["webhook-timestamp"]) - 400, body), body,
    ),
    "no time": lambda headers, body: ({**headers, "webhook-timestamp": "soon"}, body),
}  # fmt: skip


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", SPOILED)
def test_reply_that_is_not_signed_for_this_call_does_not_count(request_, service, asked, how):
    service.spoil = SPOILED[how]
    running.run(asked.pk)
    asked.refresh_from_db()
    assert (state(request_), asked.state) == (State.VERIFYING, "waiting")
    service.spoil = lambda headers, body: (headers, body)
    Job.objects.filter(pk=asked.pk).update(not_before=timezone.now() - timedelta(seconds=1))
    running.run(asked.pk)
    assert state(request_) == State.SUCCEEDED


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "reply",
    [
        lambda said: {"digest": "sha256:" + "0" * 64, "passed": True},
        lambda said: {"digest": said["digest"], "passed": "yes"},
        lambda said: {"digest": said["digest"]},
        lambda said: ["passed"],
    ],
)
def test_reply_without_a_result_for_this_digest_does_not_count(request_, service, asked, reply):
    service.reply = reply
    running.run(asked.pk)
    assert state(request_) == State.VERIFYING


@pytest.mark.django_db(transaction=True)
def test_service_that_fails_is_asked_again_until_the_time_is_over(request_, service, asked):
    service.status = 503
    running.run(asked.pk)
    assert state(request_) == State.VERIFYING
    PromotionRequest.objects.filter(pk=request_.pk).update(verify_by=timezone.now() - timedelta(seconds=1))
    assert fail_overdue() == 1
    Job.objects.filter(pk=asked.pk).update(not_before=timezone.now() - timedelta(seconds=1))
    service.status = 200
    running.run(asked.pk)  # its request ended: it asks nobody
    assert (state(request_), len(service.calls)) == (State.FAILED, 1)


@pytest.mark.django_db(transaction=True)
def test_fifty_answers_have_one_effect(dock, request_):
    Environment.objects.update(verification="manual")
    request_.environment.refresh_from_db()
    copied(dock, request_)
    race = Race(
        *[lambda: confirm(request_.pk, actor=dock.deployer, is_good=True, comment="a")] * 25,
        *[lambda: confirm(request_.pk, actor=dock.owner, is_good=False, comment="b")] * 25,
    )
    assert len(race.done) == 1
    ended = AuditEvent.objects.filter(action__in=("promotion.succeeded", "promotion.failed"))
    assert ended.count() == 1
