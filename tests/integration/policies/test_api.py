"""Policies and waivers over the API: versions of two authors, drafts, test cases, and the verdict about an image."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from accounts.models import User
from lifecycle.core import clock
from lifecycle.environments.models import Slot
from lifecycle.policies.models import PolicyRevision, Waiver
from lifecycle.policies.types import Scope
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import ENFORCE, rule, save

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def client_of(user: User) -> Client:
    made = Client()
    made.force_login(user, backend=BACKEND)
    return made


@pytest.fixture
def owner(dock):
    return client_of(dock.owner)


def put(client, scope, rules, etag=None, **more):
    headers = {"If-Match": etag} if etag else {}
    return client.put(f"/api/v1/policies/{scope}/", {"rules": rules, **more}, "application/json", headers=headers)


def post(client, path, body):
    return client.post(f"/api/v1/{path}", body, "application/json")


def test_two_authors_do_not_overwrite_each_other(owner):
    empty = owner.get("/api/v1/policies/team:shop/")
    assert (empty.json()["revision"], empty.json()["rules"]) == (0, [])
    assert put(owner, "team:shop", [rule()]).status_code == 428
    first = put(owner, "team:shop", [rule()], empty["ETag"], note="first")
    assert (first.status_code, first.json()["revision"]) == (200, 1)
    late = put(owner, "team:shop", [], empty["ETag"])
    assert (late.status_code, late.json()["code"]) == (412, "stale_version")
    assert put(owner, "team:shop", [], first["ETag"]).json()["revision"] == 2
    (stored,) = owner.get("/api/v1/policies/").json()["results"]
    assert (stored["scope"], stored["revision"], stored["author"]) == ("team:shop", 2, "owner")
    revisions = owner.get("/api/v1/policies/team:shop/revisions/").json()["results"]
    assert [(row["revision"], row["note"]) for row in revisions] == [(2, ""), (1, "first")]


def test_refusals_name_their_reason(dock, owner):
    etag = owner.get("/api/v1/policies/team:shop/")["ETag"]
    blocked = put(owner, "team:shop", [rule(modes=ENFORCE)], etag)
    assert (blocked.status_code, blocked.json()["code"]) == (422, "policy_blocked")
    assert "r is new" in blocked.json()["details"]["reasons"][0]
    assert put(owner, "team:shop", [rule(kind="nothing")], etag).status_code == 400
    assert put(owner, "team:shop", "x", etag).status_code == 400
    assert put(owner, "site", [], owner.get("/api/v1/policies/site/")["ETag"]).status_code == 403
    assert put(client_of(dock.outsider), "team:shop", [], etag).status_code == 404
    assert put(client_of(dock.requester), "team:shop", [], etag).status_code == 403
    assert not PolicyRevision.objects.exists()


def test_catalogue_names_what_waits(owner):
    found = owner.get("/api/v1/policies/catalogue/").json()
    waiting = {kind["kind"]: kind["waits_for"] for kind in found["kinds"]}
    assert waiting["vex"] == "VEX statements about findings"
    assert waiting["epss"] == ""
    assert waiting["findings"] == ""
    assert found["points"] == ["ingest", "request", "execution", "admission"]
    assert "findings" in found["names"]


@pytest.fixture
def vulnerable(dock):
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    rows.count_risk(dock.image)
    Slot.objects.create(repository=dock.repository, environment=dock.dev, image=dock.image, since=clock.now())


@pytest.mark.usefixtures("vulnerable")
def test_what_if_names_what_a_draft_would_block_and_saves_nothing(dock, owner, request_):
    found = post(owner, "policies/what-if/", {"scope": "team:shop", "rules": [rule(severity="high")]}).json()
    assert (found["judged_now"], found["judged_requests"]) == (1, 1)
    assert found["blocked_by_team"] == {"shop": 2}
    assert found["blocked_by_rule"] == {"r": 2}
    assert [(flip["environment"], flip["request"], flip["blocked"]) for flip in found["flips"]] == [
        ("dev", None, True), ("staging", request_.pk, True)
    ]  # fmt: skip
    assert found["flips"][0]["rules"][0]["summary"].startswith("1 finding: CVE-2026-1 in openssl.")
    assert not PolicyRevision.objects.exists()
    harmless = post(owner, "policies/what-if/", {"scope": "team:shop", "rules": [rule(severity="critical")]}).json()
    assert (harmless["flips"], harmless["blocked_by_team"]) == ([], {})


@pytest.mark.usefixtures("vulnerable")
def test_what_if_names_what_a_looser_draft_releases(dock, owner):
    save(Scope(dock.team), rule(severity="high", modes=ENFORCE), actor=dock.owner)
    found = post(owner, "policies/what-if/", {"scope": "team:shop", "rules": []}).json()
    assert found["released_by_team"] == {"shop": 1}
    assert found["flips"][0]["blocked"] is False


@pytest.mark.usefixtures("vulnerable")
def test_what_if_needs_the_right_to_save(dock):
    body = {"scope": "team:shop", "rules": []}
    assert post(client_of(dock.requester), "policies/what-if/", body).status_code == 403
    assert post(client_of(dock.outsider), "policies/what-if/", body).status_code == 404
    admin = client_of(User.objects.create(username="admin", is_superuser=True))
    found = post(admin, "policies/what-if/", {"scope": "site", "rules": [rule(severity="high")]}).json()
    assert (found["blocked_by_team"], found["hidden_count"], found["flips"]) == ({"shop": 1}, 1, [])


def test_cases_beside_a_policy_pass_and_fail_with_the_difference(owner):
    rules = [rule(severity="high", modes=ENFORCE), rule("user", "not_root", modes=ENFORCE)]
    platform = {"user": "1000", "sbom_days": 0, "age_days": 3}
    bad = {"advisory": "CVE-1", "package": "debian/openssl", "severity": "high"}
    cases = [
        {"name": "clean", "facts": {"platforms": [platform], "findings": []}, "allowed": True},
        {"name": "root", "facts": {"platforms": [platform | {"user": "0"}], "findings": []},
         "expect": {"user": "unsatisfied"}, "allowed": False},
        {"name": "wrong", "facts": {"platforms": [platform], "findings": [bad]}, "expect": {"r": "satisfied"}},
        {"name": "unknown", "facts": {}, "expect": {"r": "error"}},
    ]  # fmt: skip
    found = post(owner, "policies/test/", {"rules": rules, "cases": cases}).json()
    assert found["passed"] is False
    assert [bool(result["problems"]) for result in found["results"]] == [False, False, True, False]
    assert "r is unsatisfied, not satisfied: 1 finding" in found["results"][2]["problems"][0]


@pytest.mark.parametrize(
    "case",
    [
        {"facts": {"colour": 1}},
        {"facts": {"platforms": [{"colour": 1}]}},
        {"facts": {"findings": [{}]}},
        {"facts": {"findings": [{"advisory": "x", "severity": "bad"}]}},
        {"facts": {"bases": [{}]}},
        {"facts": {"platforms": 1}},
        {"facts": [], "expect": []},
        {"expect": {"r": "good"}},
        {"allowed": 1},
        {"point": "push"},
        {"what": 1},
        1,
    ],
)
def test_case_that_cannot_be_read_is_refused(case, owner):
    answer = post(owner, "policies/test/", {"rules": [rule()], "cases": [case]})
    if case == {"facts": [], "expect": []}:
        assert answer.status_code == 200  # empty is empty
    else:
        assert answer.status_code == 400, answer.content


@pytest.mark.usefixtures("vulnerable")
def test_expression_is_tried_over_a_real_image(dock, owner):
    body = {"expression": "findings.exists(f, f.severity == 'high')", "digest": dock.image.digest}
    found = post(owner, "policies/try/", body).json()
    assert (found["value"], found["problem"]) == (True, "")
    assert found["facts"]["findings"][0]["advisory"] == "CVE-2026-1"
    assert post(owner, "policies/try/", body | {"expression": "findings."}).json()["problem"]
    assert post(client_of(dock.outsider), "policies/try/", body).status_code == 404
    assert post(owner, "policies/try/", body | {"repository": "shop/web"}).status_code == 404


@pytest.mark.usefixtures("vulnerable")
def test_verdict_answers_whether_an_image_may_go(dock, owner):
    where = f"/api/v1/images/{dock.image.digest}/verdict/"
    assert owner.get(where).json()["allowed"] is True
    save(Scope(dock.team), rule(severity="high", modes=ENFORCE), rule("seen", "sbom"), actor=dock.owner)
    found = owner.get(f"{where}?environment=staging").json()
    assert (found["allowed"], found["points"]) == (False, ["request", "execution"])
    assert found["reasons"][0].startswith("No findings: 1 finding: CVE-2026-1 in openssl.")
    assert [(item["rule"], item["blocks"]) for item in found["rules"]] == [("r", True), ("seen", False)]
    requester = client_of(dock.requester).get(f"{where}?environment=staging").json()
    assert [item["rule"] for item in requester["rules"]] == ["r"]  # rules in observe are for their owner
    assert owner.get(f"{where}?environment=qa").status_code == 404
    assert owner.get(f"{where}?point=push").status_code == 400
    assert owner.get(f"{where}?point=ingest").json()["allowed"] is True
    assert client_of(dock.outsider).get(where).status_code == 404


def test_waiver_is_requested_decided_and_revoked(dock, owner):
    save(Scope(dock.team), rule(), actor=dock.owner)
    guard = client_of(person("guard", dock.team, "security"))
    body = {"team": "shop", "rule": "r", "repository": "shop/api", "reason": "because", "ticket": "OPS-1",
            "until": (clock.now() + timedelta(days=7)).isoformat()}  # fmt: skip
    made = post(guard, "waivers/", body)
    assert (made.status_code, made.json()["state"], made.json()["repository"]) == (201, "requested", "shop/api")
    where = f"waivers/{made.json()['id']}/"
    assert post(guard, f"{where}approve/", {}).status_code == 403
    approver = client_of(dock.approver)
    assert post(approver, f"{where}approve/", {"reason": "read"}).json()["decided_by"] == "approver"
    assert post(approver, f"{where}approve/", {}).status_code == 409
    assert [row["id"] for row in owner.get("/api/v1/waivers/?state=approved").json()["results"]] == [made.json()["id"]]
    assert owner.get("/api/v1/waivers/?state=open").status_code == 400
    assert post(guard, f"{where}revoke/", {}).json()["state"] == "revoked"
    assert owner.get(f"/api/v1/{where}").json()["ended_at"]
    again = post(guard, "waivers/", body).json()
    assert post(approver, f"waivers/{again['id']}/reject/", {}).status_code == 400
    assert post(approver, f"waivers/{again['id']}/reject/", {"reason": "no"}).json()["state"] == "rejected"
    assert post(guard, "waivers/", body | {"repository": "shop/web"}).status_code == 404
    assert Waiver.objects.count() == 2
