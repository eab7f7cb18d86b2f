"""Rollback: a short path to an image that was there before, which runs first and holds what runs by itself."""

from __future__ import annotations

import pytest
from django.db.models import F
from django.test import Client
from django.urls import reverse

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, PolicyBlocked
from lifecycle.environments.models import Environment, Hold, Slot
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.promotion import queries, services
from lifecycle.promotion.automatic import why_not_automatic
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.rollback import earlier_images, request_rollback
from tests.factories import dock as rows
from tests.racing import Race

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def history(dock):
    """shop/api was promoted to staging three times; the dock's own image is there now. The two before, oldest first."""
    images = []
    for number in (1, 2):
        image = rows.image(f"build {number}", layers=1, scanned_at=clock.now(), package_count=1)
        rows.push(dock.repository, image, f"0.{number}")
        images.append(image)
    for image, tag in zip([*images, dock.image], ("0.1", "0.2", "1.0"), strict=True):
        PromotionRequest.objects.create(
            image=image, repository=dock.repository, environment=dock.staging, tag=tag, state=State.SUCCEEDED,
            reason="x", requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
        )  # fmt: skip
    Slot.objects.update_or_create(
        repository=dock.repository, environment=dock.staging,
        defaults={"image": dock.image, "tag": "1.0", "since": clock.now()},
    )  # fmt: skip
    return images


def back(dock, actor=None, **more):
    return request_rollback(dock.repository, dock.staging, actor=actor or dock.deployer, reason="payments fail", **more)


def named(request, name):
    return next((item for item in queries.requirements_now(request) if item["name"] == name), None)


def test_rollback_goes_to_the_image_before_with_one_approval_and_without_stages_and_soak(dock, history):
    Environment.objects.filter(pk=dock.staging.pk).update(required_approvals=2, soak_s=3600)
    made = back(dock)
    assert (made.image, made.tag, made.kind, made.state) == (history[1], "0.2", "rollback", State.OPEN)
    assert named(made, "approvals")["counts"]["required"] == 1
    assert (named(made, "stage_order")["status"], named(made, "soak")) == ("not_applicable", None)
    assert AuditEvent.objects.get(action="promotion.requested").details == {"tag": "0.2", "kind": "rollback"}
    assert services.approve(made.pk, actor=dock.approver).state == State.READY
    assert back(dock).pk == made.pk  # the same one


def test_rollback_to_a_chosen_image(dock, history):
    assert [row.image for row in earlier_images(dock.repository, dock.staging)] == history[::-1]
    assert back(dock, digest=history[0].digest).image == history[0]


def test_only_what_was_there_can_be_rolled_back_to(dock, history):
    never = rows.image("never there", layers=1)
    rows.push(dock.repository, never, "2.0")
    with pytest.raises(NotFound, match="never promoted to staging"):
        back(dock, digest=never.digest)
    with pytest.raises(Conflict, match="already deployed"):
        back(dock, digest=dock.image.digest)
    with pytest.raises(NotFound, match="No earlier image"):
        request_rollback(dock.repository, dock.dev, actor=dock.deployer, reason="x")
    with pytest.raises(Malformed):
        request_rollback(dock.repository, dock.staging, actor=dock.deployer, reason=" ")
    for actor in (dock.approver, dock.outsider):
        with pytest.raises(NotPermitted):
            back(dock, actor)


@pytest.mark.usefixtures("history")
def test_rollback_takes_the_place_of_a_waiting_request_for_the_same_image(dock):
    old = PromotionRequest.objects.filter(tag="0.2").get().image
    Slot.objects.filter(environment=dock.dev).delete()
    waiting = services.request_promotion(dock.repository, old.digest, dock.staging, actor=dock.requester, reason="x")
    made = back(dock)
    waiting.refresh_from_db()
    assert (waiting.state, waiting.superseded_by) == (State.SUPERSEDED, made)


def finish(request):
    """Record the result of the running copy, as its worker does after it verified the target."""
    services.verify(request)
    services.succeed(request)
    request.refresh_from_db()


@pytest.mark.usefixtures("history")
def test_succeeded_rollback_holds_runs_without_a_user_until_a_person_lifts_it(dock):
    Environment.objects.update(auto_execute=True)
    made = back(dock)
    services.approve(made.pk, actor=dock.approver)
    services.execute(made.pk, actor=dock.deployer)
    finish(made)
    hold = Hold.objects.get()
    assert (hold.scope, hold.repository, hold.owner) == ("auto", dock.repository, dock.deployer)
    Slot.objects.update_or_create(
        repository=dock.repository, environment=dock.dev, defaults={"image": dock.image, "since": clock.now()}
    )
    again = services.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="again"
    )
    assert services.approve(again.pk, actor=dock.approver).state == State.READY  # a person may bring it back
    again.refresh_from_db()
    assert why_not_automatic(again).startswith(f"Held by deployer: {made} rolled back to 0.2.")


@pytest.mark.usefixtures("history")
def test_rollback_preempts_a_running_promotion_whose_worker_changes_nothing(dock):
    running_one = PromotionRequest.objects.create(
        image=dock.image, repository=dock.repository, environment=dock.staging, tag="1.1", state=State.READY,
        reason="x", requested_by=dock.requester, approve_by=clock.now(),
    )  # fmt: skip
    PromotionRequest.objects.filter(pk=running_one.pk).update(state=State.EXECUTING)
    Slot.objects.filter(environment=dock.staging).update(fence=F("fence") + 1)
    fence = Slot.objects.get(environment=dock.staging).fence
    job = Job.objects.create(kind="promote", subject_id=running_one.pk, actor=dock.deployer, payload={"fence": fence})
    made = back(dock)
    services.approve(made.pk, actor=dock.approver)
    services.execute(made.pk, actor=dock.deployer)
    running_one.refresh_from_db()
    assert (running_one.state, running_one.failure) == (State.FAILED, f"{made}, a rollback, took its place.")
    assert Slot.objects.get(environment=dock.staging).fence == fence + 1
    running.run(job.pk)
    finish_late = services.succeed
    finish_late(running_one)  # a worker that was in its last step
    running_one.refresh_from_db()
    assert running_one.state == State.FAILED
    assert Slot.objects.get(environment=dock.staging).image == dock.image


@pytest.mark.usefixtures("history")
def test_forward_request_preempts_nothing(dock):
    made = back(dock)
    services.approve(made.pk, actor=dock.approver)
    services.execute(made.pk, actor=dock.deployer)
    other = rows.image("other", layers=1, scanned_at=clock.now(), package_count=1)
    rows.push(dock.repository, other, "3.0")
    Slot.objects.update_or_create(
        repository=dock.repository, environment=dock.dev, defaults={"image": other, "since": clock.now()}
    )
    asked = services.request_promotion(dock.repository, other.digest, dock.staging, actor=dock.requester, reason="x")
    services.approve(asked.pk, actor=dock.approver)
    with pytest.raises(Conflict, match="is running"):
        services.execute(asked.pk, actor=dock.deployer)


@pytest.mark.usefixtures("history")
def test_rollback_does_not_skip_holds_or_quorum(dock):
    Hold.objects.create(team=dock.team, environment=dock.staging, reason="incident", owner=dock.owner)
    made = back(dock)
    assert services.approve(made.pk, actor=dock.approver).state == State.OPEN
    Hold.objects.all().delete()
    User.objects.filter(pk__in=(dock.approver.pk, dock.second.pk, dock.owner.pk)).update(is_active=False)
    with pytest.raises(PolicyBlocked):
        back(dock, digest=PromotionRequest.objects.get(tag="0.1").image.digest)


def test_board_leads_to_the_form(dock, history):
    client = Client()
    client.force_login(dock.deployer, backend=BACKEND)
    address = f"{reverse('lifecycle:promotion-rollback')}?repository={dock.repository.pk}&environment={dock.staging.pk}"
    assert address.replace("&", "&amp;") in client.get(reverse("lifecycle:environments")).content.decode()
    page = client.get(address).content.decode()
    assert page.index("0.2") < page.index("0.1")
    assert client.post(address, {"digest": history[0].digest, "reason": ""}).status_code == 422
    answer = client.post(address, {"digest": history[0].digest, "reason": "payments fail"})
    made = PromotionRequest.objects.get(kind="rollback")
    assert answer["Location"] == reverse("lifecycle:promotion", args=[made.pk])
    assert "<b>Rollback</b>" in client.get(answer["Location"]).content.decode()
    viewer = Client()
    viewer.force_login(dock.approver, backend=BACKEND)
    assert viewer.get(address).status_code == 403


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("history")
def test_fifty_clicks_make_one_rollback(dock):
    race = Race(*[lambda: back(dock)] * 50)
    assert (len(race.done), PromotionRequest.objects.filter(kind="rollback").count()) == (50, 1)
    made = PromotionRequest.objects.get(kind="rollback")
    services.approve(made.pk, actor=dock.approver)
    race = Race(*[lambda: services.execute(made.pk, actor=dock.deployer)] * 50)
    assert (len(race.done), Job.objects.filter(kind="promote").count()) == (1, 1)
