"""Promotions over the API: same outcomes as the pages; each refusal is a problem with its code."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import Role, Team, User
from lifecycle.authority.models import RoleGrant
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage
from tests.clients import Caller
from tests.factories import people

pytestmark = pytest.mark.django_db


def asked(dock: Any, **change: Any) -> dict[str, Any]:
    return {"digest": dock.image.digest, "repository": "shop/api", "environment": "dev", "reason": "try"} | change


def test_request_shows_blockers_and_votes(dock, request_):
    shown = Caller(dock.requester).get(f"promotions/{request_.pk}/").json()
    assert [(item["name"], item["status"]) for item in shown["requirements"]] == [
        ("approvals", "pending"),
        ("packages_known", "satisfied"),
        ("platforms_complete", "satisfied"),
        ("stage_order", "satisfied"),
    ]
    assert shown["requirements"][0]["who"] == ["approver", "owner", "second"]
    assert shown["requirements"][0]["counts"] == {"given": 0, "required": 1, "eligible": 3}
    done = Caller(dock.approver).post(f"promotions/{request_.pk}/approve/", {"reason": "seen"}).json()
    (vote,) = done["votes"]
    assert (vote["voter"], vote["value"], vote["comment"], vote["via"]) == ("approver", "approve", "seen", "api")
    assert (vote["digest"], vote["evaluation"][:7], vote["lapsed_at"]) == (dock.image.digest, "sha256:", None)


@pytest.mark.parametrize("verb", ["", "approve/", "reject/", "execute/", "withdraw/"])
@pytest.mark.parametrize("number", ["x", "999999999999999999", "1" * 30, "-1", "1.5"])
def test_invalid_request_number_is_not_found(dock, verb, number):
    caller = Caller(dock.approver)
    answer = (
        caller.post(f"promotions/{number}/{verb}", {"reason": "x"}) if verb else caller.get(f"promotions/{number}/")
    )
    assert answer.status_code == 404


def test_lists_are_filtered_and_unknown_state_is_refused(dock, request_):
    caller = Caller(dock.requester)
    assert [row["id"] for row in caller.get("promotions/", state="open").json()["results"]] == [request_.pk]
    assert caller.get("promotions/", state="ready").json()["results"] == []
    assert caller.get("promotions/", environment="dev").json()["results"] == []
    assert caller.get("promotions/", state="pending").status_code == 400
    # Filters are parameters of the list only. An action refuses them, and does nothing.
    approver = Caller(dock.approver)
    assert approver.post(f"promotions/{request_.pk}/approve/?state=open").status_code == 400
    assert approver.post(f"promotions/{request_.pk}/approve/").json()["state"] == "ready"


def test_repository_name_means_the_managed_registry(dock):
    other = Registry.objects.create(name="other", endpoint="https://registry.example.com")
    team = Team.objects.create(slug="elsewhere", name="Elsewhere")
    RoleGrant.objects.create(user=dock.requester, team=team, role=Role.objects.get(slug="owner"))
    twin = Repository.objects.create(registry=other, team=team, name="shop/api", family="shop/api")
    RepositoryImage.objects.create(repository=twin, image=dock.image)
    made = Caller(dock.requester).post("promotions/", asked(dock))
    assert (made.status_code, made.json()["team"]) == (201, "shop")
    assert PromotionRequest.objects.get().repository == dock.repository


def test_second_request_returns_the_open_one(dock):
    caller = Caller(dock.requester)
    first, second = (caller.post("promotions/", asked(dock)).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert PromotionRequest.objects.count() == 1


def test_each_refusal_is_a_problem_with_its_code(dock, request_):
    def problem(who: User, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        answer = Caller(who).post(path, body)
        assert answer["Content-Type"] == "application/problem+json"
        return answer.status_code, answer.json()["code"]

    one = f"promotions/{request_.pk}/"
    assert problem(dock.requester, one + "approve/") == (403, "not_permitted")
    assert problem(dock.outsider, one + "approve/") == (404, "not_found")
    assert problem(dock.approver, one + "reject/") == (400, "malformed")
    assert problem(dock.approver, one + "approve/", {"comment": "x"}) == (400, "invalid")
    assert problem(dock.deployer, one + "execute/") == (409, "illegal_transition")
    assert problem(dock.second, one + "withdraw/") == (403, "not_permitted")
    assert problem(dock.requester, "promotions/", asked(dock, digest="sha256:" + "c" * 64)) == (404, "not_found")
    assert problem(dock.requester, "promotions/", asked(dock, tag="no tag")) == (400, "malformed_reference")
    assert problem(dock.approver, "promotions/", asked(dock)) == (403, "not_permitted")
    services.approve(request_.pk, actor=dock.approver)
    assert problem(dock.approver, one + "approve/") == (409, "conflict")
    Image.objects.update(scanned_at=None)
    assert problem(dock.deployer, one + "execute/") == (422, "policy_blocked")
    services.withdraw(request_.pk, actor=dock.requester)
    assert problem(dock.approver, one + "approve/") == (409, "illegal_transition")


def test_robot_can_request_but_not_vote(dock):
    robot = people.robot(dock.team, "owner").user
    made = Caller(robot).post("promotions/", asked(dock, environment="staging"))
    assert made.status_code == 201
    refused = Caller(robot).post(f"promotions/{made.json()['id']}/approve/")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")


def test_session_needs_csrf_token_to_vote(dock, request_):
    client = Client(enforce_csrf_checks=True)
    client.force_login(dock.approver, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert client.post(f"/api/v1/promotions/{request_.pk}/approve/").status_code == 403
    request_.refresh_from_db()
    assert request_.state == "open"


def test_comparison_needs_access_to_both_images(dock):
    other = Image.objects.create(digest="sha256:" + "d" * 64, kind="manifest", os="linux", architecture="amd64")
    path = f"images/{dock.image.digest}/compare/"
    assert Caller(dock.requester).get(path, to=other.digest).status_code == 404  # the user can see it nowhere
    RepositoryImage.objects.create(repository=dock.repository, image=other)
    found = Caller(dock.requester).get(path, to=other.digest).json()
    assert (found["before"], found["after"], found["is_known"]) == (dock.image.digest, other.digest, False)
    assert Caller(dock.requester).get(path).status_code == 404
    assert Caller(dock.outsider).get(path, to=other.digest).status_code == 404
