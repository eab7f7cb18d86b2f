"""Votes: objections stop a request until they are withdrawn or overruled, and each person has one vote."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Role
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted
from lifecycle.promotion import queries, services
from lifecycle.promotion.models import PromotionRequest, Vote
from tests.factories import dock as rows
from tests.factories import people
from tests.racing import Race

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def actions():
    return list(
        AuditEvent.objects.filter(action__startswith="promotion.").order_by("pk").values_list("action", flat=True)
    )


def requirement(request, name="objections"):
    return next((item for item in queries.requirements_now(request) if item["name"] == name), None)


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def test_objection_regresses_a_ready_request_until_it_is_withdrawn(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    objected = services.object_to(request_.pk, actor=dock.second, reason="The load test is red.")
    assert objected.state == State.OPEN
    assert requirement(objected)["who"] == [
        "second: withdraw the objection",
        "a user with environment.manage: overrule",
    ]
    with pytest.raises(IllegalTransition, match="when all requirements are met"):
        services.execute(request_.pk, actor=dock.deployer)
    again = services.withdraw_vote(request_.pk, actor=dock.second, reason="green again")
    assert (again.state, requirement(again)) == (State.READY, None)
    assert actions()[2:] == [
        "promotion.ready", "promotion.objected", "promotion.regressed", "promotion.vote_withdrawn", "promotion.ready",
    ]  # fmt: skip
    assert AuditEvent.objects.get(action="promotion.vote_withdrawn").details["vote"] == "object"


def test_objection_needs_a_reason_and_is_given_once(dock, request_):
    with pytest.raises(Malformed):
        services.object_to(request_.pk, actor=dock.second, reason=" ")
    services.object_to(request_.pk, actor=dock.second, reason="no")
    with pytest.raises(Conflict, match="already voted"):
        services.object_to(request_.pk, actor=dock.second, reason="no")
    assert services.approve(request_.pk, actor=dock.second).state == State.READY  # a changed mind
    assert Vote.objects.get().value == "approve"


def test_objection_survives_new_evidence_and_is_bound_to_what_was_seen(dock, request_):
    services.object_to(request_.pk, actor=dock.second, reason="no")
    seen = request_.votes.get().evaluation
    package = rows.package("libssl3", "3.0.11-1", source="openssl")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "critical", package)
    services.approve(request_.pk, actor=dock.approver)
    vote = request_.votes.get(voter=dock.second)
    assert (vote.value, vote.lapsed_at, vote.digest, vote.evaluation) == ("object", None, dock.image.digest, seen)
    assert requirement(request_)["status"] == "unsatisfied"


def test_withdrawn_approval_regresses_and_can_be_given_again(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    assert services.withdraw_vote(request_.pk, actor=dock.approver).state == State.OPEN
    assert list(queries.decidable_by(dock.approver)) == [request_]
    with pytest.raises(Conflict, match="no vote"):
        services.withdraw_vote(request_.pk, actor=dock.approver)
    assert services.approve(request_.pk, actor=dock.approver).state == State.READY


def test_votes_of_a_running_or_ended_request_stand(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    services.execute(request_.pk, actor=dock.deployer)
    for act in (
        lambda: services.withdraw_vote(request_.pk, actor=dock.approver),
        lambda: services.object_to(request_.pk, actor=dock.second, reason="stop"),
        lambda: services.overrule(request_.pk, "second", actor=dock.owner, reason="go"),
    ):
        with pytest.raises(IllegalTransition):
            act()


def test_objection_of_who_lost_the_right_stops_nothing(dock, request_):
    services.object_to(request_.pk, actor=dock.second, reason="no")
    services.approve(request_.pk, actor=dock.approver)
    RoleGrant.objects.filter(user=dock.second).delete()
    services.reevaluate(request_)
    request_.refresh_from_db()
    assert request_.state == State.READY
    with pytest.raises(NotFound):
        services.withdraw_vote(request_.pk, actor=dock.second)  # who sees nothing is told nothing


@pytest.mark.parametrize("who", ["requester", "deployer"])
def test_only_approvers_object(dock, request_, who):
    with pytest.raises(NotPermitted):
        services.object_to(request_.pk, actor=getattr(dock, who), reason="no")


def test_manager_overrules_with_a_reason_and_the_objection_stays_on_record(dock, request_):
    services.object_to(request_.pk, actor=dock.second, reason="no")
    services.approve(request_.pk, actor=dock.approver)
    for actor in (dock.approver, dock.requester, dock.deployer):
        with pytest.raises(NotPermitted):
            services.overrule(request_.pk, "second", actor=actor, reason="known")
    with pytest.raises(Malformed):
        services.overrule(request_.pk, "second", actor=dock.owner, reason="")
    with pytest.raises(NotFound):
        services.overrule(request_.pk, "approver", actor=dock.owner, reason="known")
    assert services.overrule(request_.pk, "second", actor=dock.owner, reason="known").state == State.READY
    shown = requirement(request_)
    assert (shown["status"], shown["summary"]) == ("waived", "second objects, overruled by owner: no")
    page = browser(dock.approver).get(reverse("lifecycle:promotion", args=[request_.pk])).content.decode()
    assert "Overruled by owner: known" in page
    assert services.object_to(request_.pk, actor=dock.second, reason="new facts").state == State.OPEN  # again


def test_nobody_overrules_on_their_own_request_or_their_own_objection(dock, request_):
    RoleGrant.objects.create(user=dock.requester, team=dock.team, role=Role.objects.get(slug="owner"))
    services.object_to(request_.pk, actor=dock.owner, reason="no")
    with pytest.raises(NotPermitted, match="you requested it"):
        services.overrule(request_.pk, "owner", actor=dock.requester, reason="mine")
    with pytest.raises(Conflict, match="Withdraw it instead"):
        services.overrule(request_.pk, "owner", actor=dock.owner, reason="mine")
    robot = people.robot(dock.team, "owner", maker=dock.owner).user
    with pytest.raises(NotPermitted, match="Only people"):
        services.overrule(request_.pk, "owner", actor=robot, reason="mine")


def test_page_objects_withdraws_and_overrules(dock, request_):
    page = reverse("lifecycle:promotion", args=[request_.pk])
    second, owner = browser(dock.second), browser(dock.owner)
    assert second.post(page + "object/", {"reason": ""}).status_code == 422
    assert second.post(page + "object/", {"reason": "red"}).status_code == 302
    assert "You object to this request" in second.get(page).content.decode()
    shown = owner.get(page).content.decode()
    assert "Overrule the objection of second" in shown
    assert "Overrule the objection" not in browser(dock.approver).get(page).content.decode()
    assert owner.post(page + "overrule/", {"voter": "second", "reason": "known"}).status_code == 302
    assert "Your objection was overruled by owner." in " ".join(second.get(page).content.decode().split())
    assert second.post(page + "withdraw-vote/", {}).status_code == 302
    assert Vote.objects.get().value == "withdraw"
    assert second.post(page + "withdraw-vote/", {}).status_code == 409


@pytest.mark.django_db(transaction=True)
def test_fifty_clicks_and_two_people_give_one_effect(dock, request_):
    race = Race(*[lambda: services.object_to(request_.pk, actor=dock.second, reason="no")] * 50)
    assert (len(race.done), len(race.refused)) == (1, 49)
    assert actions().count("promotion.objected") == 1
    race = Race(
        *[lambda: services.withdraw_vote(request_.pk, actor=dock.second)] * 25,
        *[lambda: services.approve(request_.pk, actor=dock.approver)] * 25,
    )
    assert sorted(number >= 25 for number in race.done) == [False, True]
    request_.refresh_from_db()
    assert request_.state == State.READY
