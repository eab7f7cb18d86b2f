"""The policy editor, the try-out box, waivers, and the verdict on the image page."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from lifecycle.core import clock
from lifecycle.environments.models import Slot
from lifecycle.policies import waivers
from lifecycle.policies.models import PolicyRevision, Waiver
from lifecycle.policies.queries import rule_set_of
from lifecycle.policies.types import Scope
from lifecycle.policy.catalogue import KINDS
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import ENFORCE, rule, save, waiver

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
SHOP = "/policies/team:shop/"


def client_of(user) -> Client:
    made = Client()
    made.force_login(user, backend=BACKEND)
    return made


@pytest.fixture
def owner(dock):
    return client_of(dock.owner)


@pytest.fixture
def vulnerable(dock):
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    rows.count_risk(dock.image)
    Slot.objects.create(repository=dock.repository, environment=dock.dev, image=dock.image, since=clock.now())


def form(number=0, kind="findings", **more):
    values = {
        "key": kind, "kind": kind, "title": "", "waivable": "on", "max_waiver_days": "90", "at_ingest": "observe",
        "at_request": "observe", "at_execution": "observe", "at_admission": "observe", "is_severity": "high",
        "is_older_than_days": "0", "is_maximum": "0",
    }  # fmt: skip
    return {f"rule-{number}-{name}": value for name, value in (values | more).items()}


def test_rule_is_added_looked_at_and_saved(owner, vulnerable, dock):
    added = owner.post(SHOP, {"act": "add", "add": "findings", "revision": "0", "count": "0"})
    assert added.status_code == 200
    assert 'name="rule-0-key"' in added.content.decode()
    body = {"revision": "0", "count": "1", "note": "first"} | form()
    seen = owner.post(SHOP, body | {"act": "what-if"})
    page = seen.content.decode()
    assert seen.status_code == 200
    assert "1 would be blocked" in page
    assert "CVE-2026-1 in openssl" in page
    assert dock.image.digest in page
    assert not PolicyRevision.objects.exists()
    saved = owner.post(SHOP, body | {"act": "save"}, follow=True).content.decode()
    assert "Revision 1 of team shop saved." in saved
    (stored,) = rule_set_of(Scope(dock.team)).rules
    assert (stored.key, stored.parameters["severity"]) == ("findings", "high")
    assert PolicyRevision.objects.get().note == "first"
    removed = {"act": "save", "revision": "1", "count": "1"} | form(remove="on")
    owner.post(SHOP, removed)
    assert rule_set_of(Scope(dock.team)).rules == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"at_request": "enforce"}, "findings is new. Save it in observe"),
        ({"key": "Not A Key"}, "lower-case letters"),
        ({"is_severity": "awful"}, "A rule has a wrong value"),
        ({"is_maximum": "-1"}, "A rule has a wrong value"),
    ],
)
def test_refused_rule_is_shown_again_with_the_reason(change, words, owner):
    answer = owner.post(SHOP, {"act": "save", "revision": "0", "count": "1"} | form(**change))
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not PolicyRevision.objects.exists()


def test_second_author_keeps_what_they_typed(owner, dock):
    save(Scope(dock.team), rule(), actor=dock.owner)
    answer = owner.post(SHOP, {"act": "save", "revision": "0", "count": "1", "note": "mine"} | form(key="other"))
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "Somebody else saved revision 1" in page
    assert 'value="other"' in page


def test_reader_sees_the_rules_and_cannot_change_them(dock):
    save(Scope(dock.team), rule(), actor=dock.owner)
    reader = client_of(dock.requester)
    page = reader.get(SHOP).content.decode()
    assert "You need policy.manage" in page
    assert "disabled" in page
    assert reader.post(SHOP, {"act": "save", "revision": "1", "count": "0"}).status_code == 403
    assert reader.post(SHOP, {"act": "what-if", "revision": "1", "count": "0"}).status_code == 403
    assert client_of(dock.outsider).get(SHOP).status_code == 404


def test_every_kind_has_a_form_and_waiting_ones_cannot_decide(owner):
    for name, kind in KINDS.items():
        page = owner.post(SHOP, {"act": "add", "add": name, "revision": "0", "count": "0"}).content.decode()
        assert 'name="rule-0-at_request"' in page
        modes = page.partition('name="rule-0-at_request"')[2].partition("</select>")[0]
        assert ("enforce" in modes) == (not kind.waits_for), name


def test_list_names_saved_sets_and_what_waits(owner, dock):
    assert "No rules yet." in owner.get("/policies/").content.decode()
    save(Scope(dock.team), rule(), actor=dock.owner)
    page = owner.get("/policies/").content.decode()
    assert "team:shop" in page
    assert "Waits for VEX statements" in page


def test_expression_is_tried(owner, vulnerable, dock):
    body = {"expression": "findings.exists(f, f.severity == 'high')", "digest": dock.image.digest, "environment": ""}
    page = owner.post("/policies/try/", body).content.decode()
    assert "<code>True</code>" in page
    assert "CVE-2026-1" in page
    assert "No result." in owner.post("/policies/try/", body | {"expression": "x"}).content.decode()
    assert owner.post("/policies/try/", body | {"digest": ""}).status_code == 422
    assert client_of(dock.outsider).post("/policies/try/", body).status_code == 404


def test_waiver_is_requested_and_decided_by_two_people(dock):
    save(Scope(dock.team), rule(), actor=dock.owner)
    guard = client_of(person("guard", dock.team, "security"))
    body = {"team": "shop", "rule": "r", "environment": "staging", "reason": "because", "ticket": "OPS-1",
            "until": f"{clock.now() + timedelta(days=3):%Y-%m-%d}"}  # fmt: skip
    page = guard.get("/waivers/new/?team=shop&rule=r").content.decode()
    assert 'value="shop"' in page
    for name, text in (("team", "shop"), ("rule", "r"), ("repository", "shop/api"), ("environment", "staging")):
        assert f'list="offered-{name}"' in page
        offered = page.partition(f'<datalist id="offered-{name}">')[2].partition("</datalist>")[0]
        assert f'<option value="{text}">' in offered
    refused = guard.post("/waivers/new/", body | {"rule": "absent"})
    assert (refused.status_code, "No rule absent applies there." in refused.content.decode()) == (422, True)
    assert "Another user must approve it." in guard.post("/waivers/new/", body, follow=True).content.decode()
    made = Waiver.objects.get()
    own = guard.get(f"/waivers/{made.pk}/").content.decode()
    assert "Someone else has to decide" in own
    approver = client_of(dock.approver)
    unreasoned = approver.post(f"/waivers/{made.pk}/reject/", {"reason": ""})
    assert (unreasoned.status_code, "Enter a reason" in unreasoned.content.decode()) == (422, True)
    assert "approved." in approver.post(f"/waivers/{made.pk}/approve/", {}, follow=True).content.decode()
    assert f"WV-{made.pk}" in guard.get("/waivers/?state=approved").content.decode()
    assert guard.get("/waivers/?state=x").status_code == 400
    guard.post(f"/waivers/{made.pk}/revoke/", {"reason": "done"})
    assert Waiver.objects.get().state == "revoked"


def test_inbox_names_waivers_to_decide_about_and_own_ones_that_end_soon(dock):
    save(Scope(dock.team), rule(), actor=dock.owner)
    guard = person("guard", dock.team, "security")
    made = waiver(dock.team, "r", by=guard, environment=dock.staging, days=7)
    line = f"/waivers/{made.pk}/"
    assert line in client_of(dock.approver).get("/inbox/").content.decode()
    for other in (guard, dock.requester, dock.outsider):
        assert line not in client_of(other).get("/inbox/").content.decode()
    waivers.approve_waiver(made.pk, actor=dock.approver)
    assert "ends on" in client_of(guard).get("/inbox/").content.decode()
    assert line not in client_of(dock.approver).get("/inbox/").content.decode()


def test_image_page_shows_the_verdict_for_an_environment(owner, vulnerable, dock):
    where = f"/t/shop/r/shop/api/i/{dock.image.digest}/?tab=policy"
    assert "No rule warns or enforces here." in owner.get(where).content.decode()
    save(Scope(dock.team, dock.staging), rule("severe", modes=ENFORCE), actor=dock.owner)
    assert "No rule warns or enforces here." in owner.get(f"{where}&environment=dev").content.decode()
    page = owner.get(f"{where}&environment=staging").content.decode()
    assert "Blocked by rules" in page
    assert "CVE-2026-1 in openssl" in page
    assert "/waivers/new/?team=shop&amp;rule=severe&amp;environment=staging" in page
    waiver(dock.team, "severe", by=person("guard", dock.team, "security"), approver=dock.approver,
           environment=dock.staging)  # fmt: skip
    assert "Rules let it pass" in owner.get(f"{where}&environment=staging").content.decode()
