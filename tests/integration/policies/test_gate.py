"""Policies at the gate of a promotion: before it is ready, while it waits, and at the moment that it runs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lifecycle.core import clock
from lifecycle.core.errors import PolicyBlocked
from lifecycle.environments.models import Slot
from lifecycle.policies import waivers
from lifecycle.policies.types import Scope
from lifecycle.promotion import services
from lifecycle.promotion.gates import stays_of
from lifecycle.promotion.models import Evaluation, PromotionRequest
from lifecycle.promotion.queries import requirements_now
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import ENFORCE, place, rule, save, waiver

pytestmark = pytest.mark.django_db


@pytest.fixture
def vulnerable(dock):
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    rows.count_risk(dock.image)
    return package


def state(request_):
    services.judge_open()
    request_.refresh_from_db()
    return request_.state


def requirement(request_, key="r"):
    return next((item for item in requirements_now(request_) if item["name"] == f"policy:{key}"), None)


@pytest.mark.usefixtures("vulnerable")
def test_enforced_rule_keeps_an_approved_request_open_with_the_reason(dock, request_):
    save(Scope(dock.team), rule(severity="high", modes=ENFORCE), actor=dock.owner)
    services.approve(request_.pk, actor=dock.approver)
    assert state(request_) == "open"
    shown = requirement(request_)
    assert shown["status"] == "unsatisfied"
    assert shown["summary"].startswith("1 finding: CVE-2026-1 in openssl.")
    assert shown["counts"] == {"findings": 1, "allowed": 0}


@pytest.mark.usefixtures("vulnerable")
@pytest.mark.parametrize(("mode", "is_shown"), [("off", False), ("observe", False), ("warn", True)])
def test_weaker_modes_do_not_stop(mode, is_shown, dock, request_):
    modes = {"request": mode, "execution": mode}
    save(Scope(dock.team), rule(severity="high", modes=modes), actor=dock.owner)
    services.approve(request_.pk, actor=dock.approver)
    assert state(request_) == "ready"
    shown = requirement(request_)
    assert (shown is not None) == is_shown
    if shown:
        assert (shown["mode"], shown["status"]) == ("warn", "unsatisfied")
    observed = Evaluation.objects.latest("pk").inputs.get("observed")
    assert observed == ({"r": "unsatisfied"} if mode == "observe" else None)


@pytest.mark.usefixtures("vulnerable")
def test_stricter_policy_regresses_a_ready_request_and_a_looser_one_releases_it(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    assert state(request_) == "ready"
    save(Scope(dock.team), rule(severity="high", modes=ENFORCE), actor=dock.owner)
    assert state(request_) == "open"
    vote = request_.votes.get()
    assert vote.lapse_reason == "The policy became stricter since the vote: r."
    assert requirement(request_)["status"] == "unsatisfied"
    save(Scope(dock.team), rule(severity="critical", modes=ENFORCE), actor=dock.owner)
    assert state(request_) == "open"
    assert requirement(request_)["status"] == "satisfied"
    services.approve(request_.pk, actor=dock.approver)  # the evidence of the new vote is the looser policy
    assert state(request_) == "ready"
    save(Scope(dock.team), rule(severity="critical", maximum=5, modes=ENFORCE), actor=dock.owner)
    assert state(request_) == "ready"
    assert request_.votes.get().lapsed_at is None


def test_stricter_policy_that_the_image_meets_ends_the_approval_too(dock, request_):
    """An approver agreed under the rules that they saw; others can be what they would have asked about."""
    services.approve(request_.pk, actor=dock.approver)
    save(Scope(dock.team), rule(severity="high", accept_unjudged=True, modes=ENFORCE), actor=dock.owner)
    assert state(request_) == "open"
    assert "became stricter" in request_.votes.get().lapse_reason


def test_approval_names_the_revisions_that_it_is_bound_to(dock, request_):
    save(Scope(dock.team), rule(severity="low", accept_unjudged=True, modes=ENFORCE), actor=dock.owner)
    services.approve(request_.pk, actor=dock.approver)
    seen = request_.votes.get().evaluation.inputs["policy"]
    assert [(name, number) for name, number, _ in seen] == [("team:shop", 2)]
    assert seen[0][2].startswith("sha256:")


@pytest.mark.usefixtures("vulnerable")
def test_rule_is_judged_again_when_the_promotion_runs(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    assert state(request_) == "ready"
    save(Scope(dock.team), rule(severity="high", modes=ENFORCE), actor=dock.owner)
    with pytest.raises(PolicyBlocked) as refused:  # nothing judged it between the edit and the run
        services.execute(request_.pk, actor=dock.deployer)
    assert any("CVE-2026-1" in reason for reason in refused.value.details["reasons"])


@pytest.mark.usefixtures("vulnerable")
def test_rule_for_running_only_keeps_a_request_from_being_ready(dock, request_):
    save(
        Scope(dock.team), rule(severity="high", modes={"request": "observe", "execution": "enforce"}), actor=dock.owner
    )
    services.approve(request_.pk, actor=dock.approver)
    assert state(request_) == "open"


@pytest.mark.usefixtures("vulnerable")
def test_rule_for_requests_only_is_not_judged_when_it_runs(dock, request_):
    modes = {"request": "enforce", "execution": "off"}
    save(Scope(dock.team), rule(severity="critical", modes=modes), actor=dock.owner)
    services.approve(request_.pk, actor=dock.approver)
    assert state(request_) == "ready"
    assert services.execute(request_.pk, actor=dock.deployer).state == "executing"
    names = [item["name"] for item in Evaluation.objects.latest("pk").requirements]
    assert "policy:r" not in names


@pytest.mark.usefixtures("vulnerable")
def test_waiver_opens_the_gate_until_it_ends_and_the_rule_stays_visible(dock, request_):
    save(Scope(dock.team), rule(severity="high", modes=ENFORCE), actor=dock.owner)
    guard = person("guard", dock.team, "security")
    made = waiver(dock.team, "r", by=guard, approver=dock.second, repository=dock.repository, advisory="CVE-2026-1")
    services.approve(request_.pk, actor=dock.approver)
    assert state(request_) == "ready"
    shown = requirement(request_)
    assert shown["status"] == "waived"
    assert shown["summary"].startswith(f"Waived by WV-{made.pk} until ")
    assert "CVE-2026-1" in shown["summary"]
    waivers.revoke_waiver(made.pk, actor=guard)
    assert state(request_) == "open"
    assert requirement(request_)["status"] == "unsatisfied"


@pytest.mark.usefixtures("vulnerable")
@pytest.mark.parametrize("scope", ["digest", "repository", "environment", "other environment"])
def test_waiver_covers_its_place_only(scope, dock, request_):
    save(Scope(dock.team), rule(severity="high", modes=ENFORCE), actor=dock.owner)
    guard = person("guard", dock.team, "security")
    places = {
        "digest": {"repository": dock.repository, "digest": dock.image.digest},
        "repository": {"repository": dock.repository},
        "environment": {"environment": dock.staging},
        "other environment": {"environment": dock.dev},
    }
    waiver(dock.team, "r", by=guard, approver=dock.second, **places[scope])
    wanted = "unsatisfied" if scope == "other environment" else "waived"
    assert requirement(request_)["status"] == wanted


def test_rule_of_another_environment_does_not_count(dock, request_):
    save(place(dock.dev), rule("labels", "labels", labels=["team"], modes=ENFORCE), actor=dock.owner)
    assert requirement(request_, "labels") is None
    save(place(dock.staging), rule("labels", "labels", labels=["team"], modes=ENFORCE), actor=dock.owner)
    assert requirement(request_, "labels")["status"] == "error"  # no configuration is known


def test_soak_counts_the_time_in_the_environment_before(dock, request_):
    Slot.objects.filter(environment=dock.dev).update(since=clock.now() - timedelta(hours=30))
    save(place(dock.staging), rule("soak", "promoted", environment="dev", hours=24, modes=ENFORCE), actor=dock.owner)
    assert requirement(request_, "soak")["status"] == "satisfied"
    Slot.objects.filter(environment=dock.dev).update(since=clock.now() - timedelta(hours=3))
    assert requirement(request_, "soak")["status"] == "pending"


def test_stays_end_with_the_next_promotion(dock):
    other = rows.image("other")
    at = clock.now()
    for image, hours in ((dock.image, 50), (other, 20)):
        PromotionRequest.objects.create(
            image=image, repository=dock.repository, environment=dock.dev, tag="1", state="succeeded",
            requested_by=dock.requester, reason="x", approve_by=at, finished_at=at - timedelta(hours=hours),
        )  # fmt: skip
    (stay,) = stays_of({(dock.image.pk, dock.repository.pk)})[dock.image.pk, dock.repository.pk]
    assert (stay.environment, (stay.until - stay.since).total_seconds() // 3600) == ("dev", 30)


def test_expression_is_a_requirement(dock, request_):
    text = 'image.environment == "production" || findings.all(f, f.severity != "high")'
    save(Scope(dock.team), rule("own", "cel", expression=text, message="No.", modes={}), actor=dock.owner)
    save(Scope(dock.team), rule("own", "cel", expression=text, message="No.", modes=ENFORCE), actor=dock.owner)
    assert requirement(request_, "own")["status"] == "satisfied"
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    assert requirement(request_, "own")["summary"] == "No."
