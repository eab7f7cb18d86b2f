"""The API as a client sees it: tokens, problems, pages, and the same answers as the services."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from lifecycle.promotion.models import PromotionRequest
from tests.clients import Caller
from tests.factories import dock as rows

pytestmark = pytest.mark.django_db


def test_nobody_gets_in_without_a_token_that_lives(dock):
    assert Client().get("/api/v1/images/").status_code == 401
    wrong = Client().get("/api/v1/images/", headers={"Authorization": "Bearer gdk_pat_nonsense"})
    assert (wrong.status_code, wrong["Content-Type"]) == (401, "application/problem+json")
    user = Caller(dock.requester)
    assert user.get("images/").status_code == 200
    dock.requester.is_active = False
    dock.requester.save()
    assert user.get("images/").status_code == 401


def test_a_promotion_from_request_to_execution(dock, request_):
    approver, deployer = Caller(dock.approver), Caller(dock.deployer)
    mine = Caller(dock.requester).post(f"promotions/{request_.pk}/approve/")
    assert (mine.status_code, mine.json()["code"]) == (403, "not_permitted")
    approved = approver.post(f"promotions/{request_.pk}/approve/", {"reason": "seen"})
    assert (approved.status_code, approved.json()["state"]) == (200, "ready")
    executed = deployer.post(f"promotions/{request_.pk}/execute/")
    assert (executed.status_code, executed.json()["state"]) == (202, "executing")
    again = deployer.post(f"promotions/{request_.pk}/execute/")
    assert (again.status_code, again.json()["code"]) == (409, "illegal_transition")


def test_a_request_is_made_by_digest(dock):
    body = {"digest": dock.image.digest, "repository": "shop/api", "environment": "dev", "reason": "try"}
    made = Caller(dock.requester).post("promotions/", body)
    assert made.status_code == 201
    assert (made.json()["digest"], made.json()["environment"]) == (dock.image.digest, "dev")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"digest": "latest"}, 400, "malformed_digest"),
        ({"state": "ready"}, 400, "invalid"),
        ({"approved_by": "me"}, 400, "invalid"),
        ({"reason": ""}, 400, "invalid"),
        ({"environment": "nowhere"}, 404, "not_found"),
        ({"repository": "other/api"}, 404, "not_found"),
    ],
)
def test_bad_input_gets_a_problem_and_leaves_nothing(dock, change, status, code):
    body = {"digest": dock.image.digest, "repository": "shop/api", "environment": "dev", "reason": "try"} | change
    answer = Caller(dock.requester).post("promotions/", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert not PromotionRequest.objects.exists()


def test_hidden_and_absent_look_the_same(dock, request_):
    outsider, absent = Caller(dock.outsider), "sha256:" + "e" * 64
    for hidden, missing in (
        (f"images/{dock.image.digest}/", f"images/{absent}/"),
        (f"promotions/{request_.pk}/", "promotions/999999/"),
        (f"repositories/{dock.repository.pk}/", "repositories/999999/"),
        (f"environments/{dock.dev.pk}/", "environments/999999/"),
    ):
        first, second = outsider.get(hidden), outsider.get(missing)
        assert (first.status_code, second.status_code) == (404, 404)
        bodies = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in (first, second)]
        assert bodies[0] == bodies[1]
        assert Caller(dock.requester).get(hidden).status_code == 200
    for path in ("images/", "promotions/", "repositories/", "environments/", "audit-events/"):
        assert outsider.get(path).json()["results"] == []


def test_an_image_says_where_it_is_as_far_as_the_caller_may_see(dock):
    hidden = rows.push(rows.repository("secret/api"), dock.image, "1.0").repository
    other = rows.image("other")
    rows.push(dock.repository, other, "2.0")
    rows.push(hidden, other, "3.0")
    me = Caller(dock.requester)
    listed = me.get("images/").json()["results"]
    assert {image["digest"]: image["places"] for image in listed} == {
        dock.image.digest: [{"repository": "shop/api", "tags": ["1.0"]}],
        other.digest: [{"repository": "shop/api", "tags": ["2.0"]}],
    }
    assert me.get(f"images/{other.digest}/").json()["places"] == [{"repository": "shop/api", "tags": ["2.0"]}]
    for asked, found in (
        ({"repository": "shop/api"}, [other.digest, dock.image.digest]),
        ({"repository": "shop/api", "tag": "1.0"}, [dock.image.digest]),
        ({"tag": "2.0"}, [other.digest]),
        ({"tag": "3.0"}, []),
        ({"repository": "secret/api"}, []),
        ({"repository": "secret/api", "tag": "1.0"}, []),
    ):
        assert [image["digest"] for image in me.get("images/", **asked).json()["results"]] == found


def test_a_list_of_images_costs_the_same_for_one_and_three(dock):
    me = Caller(dock.requester)
    me.get("images/")  # the first use of a token is noted
    with CaptureQueriesContext(connection) as one:
        assert len(me.get("images/").json()["results"]) == 1
    for name in ("second", "third"):
        rows.push(dock.repository, rows.image(name), name)
    with CaptureQueriesContext(connection) as three:
        assert len(me.get("images/").json()["results"]) == 3
    assert len(three) == len(one), [query["sql"] for query in three]


def test_the_trail_is_for_auditors(dock, request_):
    assert Caller(dock.requester).get("audit-events/").json()["results"] == []
    actions = [row["action"] for row in Caller(dock.owner).get("audit-events/").json()["results"]]
    assert actions == ["promotion.requested", "environment.created", "environment.created"]


def test_pages_follow_each_other_and_a_bad_limit_is_refused(dock, request_):
    owner = Caller(dock.owner)
    first = owner.get("audit-events/", limit=2)
    assert len(first.json()["results"]) == 2
    assert first["Link"] == f'<{first.json()["next"]}>; rel="next"'
    rest = Client().get(first.json()["next"], headers=owner.headers).json()
    assert (len(rest["results"]), rest["next"]) == (1, None)
    for limit in ("0", "201", "x", "1e9"):
        assert owner.get("audit-events/", limit=limit).status_code == 400
    assert owner.get("audit-events/", cursor="forged").status_code == 400


def test_the_schema_is_valid_and_leaves_nothing_to_guess(tmp_path):
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))


def test_the_schema_describes_every_route(dock):
    answer = Caller(dock.owner).get("schema/", format="json")
    assert answer.status_code == 200
    assert b"/api/v1/promotions/{id}/approve/" in answer.content
    assert b"3.1" in answer.content
    paths = answer.json()["paths"]
    assert all("Problem" in str(verb["responses"]["default"]) for path in paths.values() for verb in path.values())
    posts = [path["post"] for path in paths.values() if "post" in path]
    assert all("Idempotency-Key" in [item["name"] for item in post["parameters"]] for post in posts)
