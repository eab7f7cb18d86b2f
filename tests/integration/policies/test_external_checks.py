"""External checks: who sets them up, how they are asked, and that only a fresh signed yes passes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from freezegun import freeze_time

from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, StaleVersion
from lifecycle.core.signed_replies import signed_headers
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.policies import asking, checks
from lifecycle.policies.models import ExternalAnswer, ExternalCheck
from lifecycle.policies.types import Scope
from lifecycle.policy.facts import Need
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import requirements_now
from tests.clients import Caller
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import ENFORCE, rule, save
from tests.fakes.signing_service import KEY

pytestmark = pytest.mark.django_db(transaction=True)
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def check(dock, service):
    """The check team:shop:scanner, which the rule `r` of the team names and enforces."""
    made, secret = checks.create_check(dock.team, "scanner", f"http://{service.address}/check", actor=dock.owner)
    service.has_secret(secret)
    name = {"check": "team:shop:scanner", "max_age_hours": 24}
    save(Scope(dock.team), rule("r", "external", modes=ENFORCE, **name), actor=dock.owner)
    return made


def judge(request_):
    PromotionRequest.objects.update(judged_at=None)  # as the round after 30 seconds, by the database's clock
    services.judge_open()
    request_.refresh_from_db()
    return next(item for item in requirements_now(request_) if item["name"] == "policy:r")


def run_questions():
    for job in Job.objects.filter(kind="ask_check", state=Job.State.WAITING):
        running.run(job.pk)
        job.refresh_from_db()
        assert job.state == Job.State.SUCCEEDED, job.last_error


def test_signed_yes_opens_the_gate_by_itself(dock, request_, service, check):
    services.approve(request_.pk, actor=dock.approver)
    waiting = judge(request_)
    assert (request_.state, waiting["status"]) == ("open", "pending")
    assert waiting["summary"] == "team:shop:scanner was not asked about this image yet."
    assert service.calls == []  # nothing is asked in the transaction that judges
    judge(request_)
    assert Job.objects.filter(kind="ask_check").count() == 1
    run_questions()
    assert [why for _, why in service.calls] == [""]  # our call was signed too
    assert service.questions == [
        {"check": "team:shop:scanner", "team": "shop", "repository": "shop/api", "digest": dock.image.digest}
    ]
    assert judge(request_)["status"] == "satisfied"
    assert request_.state == "ready"
    judge(request_)
    assert Job.objects.filter(kind="ask_check").count() == 1  # it is not asked again while the answer is new


def test_signed_no_stops_it_with_the_message(dock, request_, service, check):
    service.reply = lambda said: {"digest": said["digest"], "passed": False, "message": "Two files are signed off."}
    services.approve(request_.pk, actor=dock.approver)
    judge(request_)
    run_questions()
    found = judge(request_)
    assert (request_.state, found["status"]) == ("open", "unsatisfied")
    assert found["summary"].endswith("UTC: Two files are signed off.")


SPOILED = {
    "no signature": lambda headers, body: ({**headers, "webhook-signature": ""}, body),
    "wrong key": lambda headers, body: (
        signed_headers(KEY, headers["webhook-id"], int(headers["webhook-timestamp"]), body), body,
    ),
    "another body": lambda headers, body: (headers, body.replace(b"12 checks", b"99 checks")),
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILED)
def test_reply_without_its_signature_is_no_pass(how, dock, request_, service, check):
    service.spoil = SPOILED[how]
    services.approve(request_.pk, actor=dock.approver)
    judge(request_)
    run_questions()
    found = judge(request_)
    assert (request_.state, found["status"]) == ("open", "error")
    assert found["summary"] == (
        "team:shop:scanner has not answered: The reply does not count: its webhook-signature is wrong."
    )
    service.spoil = lambda headers, body: (headers, body)
    with freeze_time(clock.now() + timedelta(minutes=2)):
        judge(request_)
        run_questions()
        assert judge(request_)["status"] == "satisfied"


@pytest.mark.parametrize("reply", [{"digest": "sha256:" + "0" * 64, "passed": True}, {"passed": True}, ["passed"]])
def test_reply_about_another_digest_is_no_pass(reply, dock, request_, service, check):
    service.reply = lambda said: reply
    judge(request_)
    run_questions()
    assert judge(request_)["status"] == "error"


def test_service_that_is_down_or_cannot_say_is_no_pass(dock, request_, service, check):
    service.status = 503
    judge(request_)
    run_questions()
    assert "status 503" in judge(request_)["summary"]
    service.status = 200
    service.reply = lambda said: {"digest": said["digest"], "message": "It still runs."}
    with freeze_time(clock.now() + timedelta(minutes=2)):
        judge(request_)
        run_questions()
        found = judge(request_)
    assert (found["status"], found["summary"]) == ("error", "team:shop:scanner cannot say yet: It still runs.")


def test_old_answer_does_not_pass_and_is_asked_again_at_half_time(dock, request_, service, check):
    services.approve(request_.pk, actor=dock.approver)
    judge(request_)
    run_questions()
    assert judge(request_)["status"] == "satisfied"
    row = ExternalAnswer.objects.get()
    with freeze_time(row.answered_at + timedelta(hours=13)):
        assert judge(request_)["status"] == "satisfied"
        assert Job.objects.filter(kind="ask_check", state="waiting").count() == 1
        service.status = 503
        run_questions()
        assert judge(request_)["status"] == "satisfied"  # the signed answer still counts
    with freeze_time(row.answered_at + timedelta(hours=25)):
        found = judge(request_)
        assert found["status"] == "error"
        assert "at most 24 hours ago are allowed. Since then: The service answered with status 503." in found["summary"]
        service.status = 200
        run_questions()
        assert judge(request_)["status"] == "satisfied"


def test_change_of_the_check_forgets_its_answers(dock, request_, service, check):
    judge(request_)
    run_questions()
    assert judge(request_)["status"] == "satisfied"
    _, secret = checks.change_check(check.pk, actor=dock.owner, renew_secret=True, revision=1)
    assert judge(request_)["status"] == "pending"
    run_questions()
    assert judge(request_)["status"] == "error"  # the service has the old secret
    service.has_secret(secret)
    with freeze_time(clock.now() + timedelta(minutes=2)):
        judge(request_)
        run_questions()
        assert judge(request_)["status"] == "satisfied"
    checks.delete_check(check.pk, actor=dock.owner)
    assert judge(request_)["summary"] == "There is no check team:shop:scanner of the site or of this team."


def test_check_of_another_team_never_counts(dock, request_, service):
    other = rows.team("other")
    boss = rows.user("boss", "owner", of=other)
    made, secret = checks.create_check(other, "scanner", f"http://{service.address}/", actor=boss)
    service.has_secret(secret)
    name = {"check": str(made), "max_age_hours": 24}
    save(Scope(dock.team), rule("r", "external", modes=ENFORCE, **name), actor=dock.owner)
    assert judge(request_)["status"] == "error"
    assert not Job.objects.filter(kind="ask_check").exists()
    save(Scope(other), rule("r", "external", **name), actor=boss)
    place = rows.repository("other/tool")
    image = rows.image("tool", scanned_at=clock.now(), package_count=1)
    (facts,) = facts_of_images([(image, place, None)], {Need.EXTERNAL})
    assert set(facts.external) == {"team:other:scanner"}  # there, it is known


def test_facts_of_many_images_take_two_queries_more(dock, check, django_assert_num_queries):
    images = [rows.image(f"image {number}") for number in range(5)]
    asking.facts_of_checks({(images[0].pk, dock.repository.pk)}, {dock.repository.pk: dock.team.pk})
    with django_assert_num_queries(2):
        asking.facts_of_checks({(row.pk, dock.repository.pk) for row in images}, {dock.repository.pk: dock.team.pk})


def test_who_may_set_up_checks(dock, service):
    address = f"http://{service.address}/check"
    for actor, team in ((dock.approver, dock.team), (dock.owner, None), (dock.outsider, dock.team)):
        with pytest.raises(NotPermitted):
            checks.create_check(team, "scanner", address, actor=actor)
    guard = person("guard", dock.team, "security")
    made, secret = checks.create_check(dock.team, "scanner", address, actor=guard)
    assert (str(made), secret[:6]) == ("team:shop:scanner", "whsec_")
    with pytest.raises(Conflict):
        checks.create_check(dock.team, "scanner", address, actor=guard)
    for wrong in ("ftp://x/", "http://elsewhere.example.com/"):
        with pytest.raises(Malformed):
            checks.create_check(dock.team, "other", wrong, actor=guard)
    with pytest.raises(Malformed):
        checks.create_check(dock.team, "Not a name", address, actor=guard)
    with pytest.raises(StaleVersion):
        checks.change_check(made.pk, actor=guard, renew_secret=True, revision=7)
    with pytest.raises(NotPermitted):
        checks.change_check(made.pk, actor=dock.approver, renew_secret=True)
    with pytest.raises(NotFound):
        checks.delete_check(made.pk, actor=dock.outsider)
    event = AuditEvent.objects.get(action="external_check.created")
    assert (event.actor, event.details["check"]) == (guard, "team:shop:scanner")
    assert secret not in str(event.details)


def test_api_shows_the_secret_once_and_wants_the_etag(dock, service):
    caller = Caller(dock.owner)
    body = {"team": "shop", "name": "scanner", "address": f"http://{service.address}/check"}
    made = caller.post("external-checks/", body)
    assert (made.status_code, made.json()["team"], made.json()["name"]) == (201, "shop", "scanner")
    assert made.json()["secret"].startswith("whsec_")
    pk = made.json()["id"]
    shown = Caller(dock.approver).get(f"external-checks/{pk}/")
    assert (shown.headers["ETag"], "secret" in shown.json()) == ('"1"', False)
    assert "address" not in shown.json()
    assert Caller(dock.outsider).get(f"external-checks/{pk}/").status_code == 404
    assert caller.put(f"external-checks/{pk}/", {"renew_secret": True}).status_code == 428
    caller.headers = {**caller.headers, "If-Match": '"9"'}
    assert caller.put(f"external-checks/{pk}/", {"renew_secret": True}).status_code == 412
    caller.headers = {**caller.headers, "If-Match": '"1"'}
    changed = caller.put(f"external-checks/{pk}/", {"renew_secret": True})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert changed.json()["secret"] != made.json()["secret"]
    caller.headers = {**caller.headers, "If-Match": "*"}
    assert caller.delete(f"external-checks/{pk}/").status_code == 204
    assert not ExternalCheck.objects.exists()


def test_pages_set_up_change_and_delete_a_check(dock, service):
    client = Client()
    client.force_login(dock.owner, backend=BACKEND)
    sent = {"team": "shop", "name": "scanner", "address": f"http://{service.address}/check"}
    made = client.post("/external-checks/new/", sent)
    assert "whsec_" in made.content.decode()
    row = ExternalCheck.objects.get()
    assert "team:shop:scanner" in client.get("/external-checks/").content.decode()
    page = client.get(f"/external-checks/{row.pk}/").content.decode()
    assert service.address.partition(":")[0] in page
    assert "whsec_" not in page
    assert client.post(f"/external-checks/{row.pk}/", {"revision": "1", "address": ""}).status_code == 422
    assert (
        "whsec_" in client.post(f"/external-checks/{row.pk}/", {"revision": "1", "renew_secret": "on"}).content.decode()
    )
    other = Client()
    other.force_login(dock.approver, backend=BACKEND)
    assert "You need policy.manage" in other.get(f"/external-checks/{row.pk}/").content.decode()
    assert other.post(f"/external-checks/{row.pk}/delete/").status_code == 403
    assert client.post(f"/external-checks/{row.pk}/delete/").status_code == 302
    assert not ExternalCheck.objects.exists()
