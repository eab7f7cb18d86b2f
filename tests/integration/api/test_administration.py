"""Teams, grants, robots, roles, tokens, jobs and audit events over the API. Every error is a problem document."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import tokens
from accounts.models import Role, User
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.jobs.models import Job, JobLogLine
from tests.clients import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(db: None) -> Caller:
    return Caller(User.objects.create(username="admin", is_superuser=True))


def test_create_team_with_members_environment_and_robot(admin: Caller) -> None:
    User.objects.create(username="kim")
    made = admin.post("teams/", {"slug": "web", "name": "Web"})
    assert (made.status_code, made.json()["slug"], made.json()["people"]) == (201, "web", 1)
    grant = admin.post("teams/web/grants/", {"username": "kim", "role": "creator", "repositories": "web/*"})
    assert (grant.status_code, grant.json()["repositories"], grant.json()["granted_by"]) == (201, "web/*", "admin")
    environment = admin.post("teams/web/environments/", {"slug": "dev", "prefix": "dev", "required_approvals": 0})
    assert (environment.status_code, environment.json()["position"]) == (201, 0)
    robot = admin.post("teams/web/robots/", {"name": "ci"}).json()
    assert (robot["username"], robot["is_active"], robot["tokens"]) == ("web+ci", True, 0)
    assert admin.post("teams/web/grants/", {"username": "web+ci", "role": "creator"}).status_code == 201
    token = admin.post(f"teams/web/robots/{robot['id']}/tokens/", {"name": "pipeline", "days": 7}).json()
    assert tokens.find_token(token["token"]).user.username == "web+ci"
    listed = admin.get(f"teams/web/robots/{robot['id']}/tokens/").json()["results"]
    assert [row["name"] for row in listed] == ["pipeline"]
    assert "token" not in listed[0]
    assert admin.delete(f"teams/web/robots/{robot['id']}/tokens/{token['id']}/").status_code == 204
    assert tokens.find_token(token["token"]) is None
    assert admin.delete(f"teams/web/robots/{robot['id']}/").status_code == 204
    assert admin.get(f"teams/web/robots/{robot['id']}/").json()["is_active"] is False
    names = [row["username"] for row in admin.get("teams/web/grants/").json()["results"]]
    assert names == ["admin", "kim"]
    assert admin.delete(f"teams/web/grants/{grant.json()['id']}/").status_code == 204
    assert not RoleGrant.objects.filter(user__username="kim").exists()


def test_children_of_another_team_are_not_found(admin: Caller, dock: Any) -> None:
    admin.post("teams/", {"slug": "web"})
    robot = admin.post("teams/web/robots/", {"name": "ci"}).json()
    token = admin.post(f"teams/web/robots/{robot['id']}/tokens/", {"name": "t"}).json()
    foreign = RoleGrant.objects.get(team__slug="web")
    mine = services.create_robot(dock.team.pk, actor=dock.owner, name="ci")
    owner = Caller(dock.owner)
    for path in (
        f"teams/shop/grants/{foreign.pk}/",
        f"teams/shop/robots/{robot['id']}/",
        f"teams/shop/robots/{robot['id']}/tokens/{token['id']}/",
        f"teams/shop/robots/{mine.pk}/tokens/{token['id']}/",
    ):
        assert owner.delete(path).status_code == 404
    assert owner.post(f"teams/shop/robots/{robot['id']}/tokens/", {"name": "t"}).status_code == 404
    assert RoleGrant.objects.filter(pk=foreign.pk).exists()
    assert tokens.find_token(token["token"]) is not None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("teams/", {"slug": "web", "id": 1}),
        ("teams/shop/grants/", {"username": "outsider", "role": "viewer", "team": "other"}),
        ("teams/shop/grants/", {"username": "outsider", "role": "viewer", "granted_by": "admin"}),
        ("teams/shop/robots/", {"name": "ci", "is_superuser": True}),
        ("teams/shop/environments/", {"slug": "x", "prefix": "x", "team": "other"}),
        ("roles/", {"slug": "x", "name": "X", "verbs": ["image.view"], "is_builtin": True}),
        ("tokens/", {"name": "x", "user": 1}),
        ("tokens/", {"name": "x", "days": 367}),
    ],
)
def test_post_rejects_unlisted_fields_and_bad_values(admin: Caller, dock: Any, path: str, body: Any) -> None:
    answer = admin.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert answer.json()["errors"][0]["pointer"] in {f"/{name}" for name in body}


def test_only_admins_create_change_and_delete_roles(admin: Caller, dock: Any) -> None:
    body = {"slug": "crew", "name": "Crew", "verbs": ["image.view"]}
    assert Caller(dock.owner).post("roles/", body).status_code == 403
    assert admin.post("roles/", body).status_code == 201
    changed = admin.put("roles/crew/", {"name": "Crew", "verbs": ["image.scan", "image.view"]}).json()
    assert (changed["verbs"], changed["is_builtin"]) == (["image.scan", "image.view"], False)
    assert admin.put("roles/owner/", {"name": "Owner", "verbs": ["image.view"]}).status_code == 403
    assert admin.delete("roles/crew/").status_code == 204
    assert not Role.objects.filter(slug="crew").exists()
    assert "viewer" in [row["slug"] for row in admin.get("roles/").json()["results"]]


def test_users_list_and_revoke_only_their_own_tokens(dock: Any) -> None:
    kim, lee = Caller(dock.requester), Caller(dock.owner)
    made = kim.post("tokens/", {"name": "laptop"}).json()
    assert made["begins_with"].startswith("gdk_pat_")
    assert made["id"] in [row["id"] for row in kim.get("tokens/").json()["results"]]
    assert made["id"] not in [row["id"] for row in lee.get("tokens/").json()["results"]]
    assert lee.delete(f"tokens/{made['id']}/").status_code == 404
    assert kim.delete(f"tokens/{made['id']}/").status_code == 204
    assert tokens.find_token(made["token"]) is None


def test_explain_names_who_can_grant_the_missing_right(dock: Any) -> None:
    query = {"who": "requester", "verb": "promotion.approve", "repository": "shop/api", "environment": "staging"}
    answer = Caller(dock.requester).get("teams/shop/explain/", **query).json()
    assert (answer["is_allowed"], answer["granters"]) == (False, ["owner"])
    bad = Caller(dock.requester).get("teams/shop/explain/", who="requester", verb="image.everything")
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (400, "/verb")


def test_jobs_are_visible_to_their_actor_and_to_admins(admin: Caller, dock: Any) -> None:
    job = Job.objects.create(
        kind="scan", subject_id=dock.image.pk, actor=dock.owner, state="failed", finished_at=clock.now()
    )
    for number in range(3):
        JobLogLine.objects.create(job=job, text=f"line {number}")
    owner, other = Caller(dock.owner), Caller(dock.requester)
    assert [row["id"] for row in owner.get("jobs/", state="failed").json()["results"]] == [job.pk]
    assert owner.get("jobs/", state="waiting").json()["results"] == []
    assert owner.get("jobs/", state="lost").status_code == 400
    assert other.get("jobs/").json()["results"] == []
    assert (other.get(f"jobs/{job.pk}/").status_code, other.get(f"jobs/{job.pk}/log/").status_code) == (404, 404)
    assert job.pk in [row["id"] for row in admin.get("jobs/").json()["results"]]
    log = owner.get(f"jobs/{job.pk}/log/").json()
    assert ([line["text"] for line in log["lines"]], log["is_final"]) == (["line 0", "line 1", "line 2"], True)
    rest = owner.get(f"jobs/{job.pk}/log/", after=log["lines"][0]["id"]).json()
    assert [line["text"] for line in rest["lines"]] == ["line 1", "line 2"]
    again = owner.post(f"jobs/{job.pk}/retry/")
    assert (again.status_code, again.json()["state"], again.json()["actor"]) == (201, "waiting", "owner")
    assert owner.post(f"jobs/{again.json()['id']}/cancel/").json()["state"] == "cancelled"
    assert owner.post(f"jobs/{again.json()['id']}/cancel/").status_code == 409


def test_audit_events_have_the_filters_of_the_page(dock: Any, request_: Any) -> None:
    owner = Caller(dock.owner)
    events = owner.get("audit-events/", action="promotion", subject="shop/api").json()["results"]
    assert [(row["action"], row["team"], row["is_sealed"]) for row in events] == [
        ("promotion.requested", "shop", False)
    ]
    assert owner.get("audit-events/", team="other").json()["results"] == []
    bad = owner.get("audit-events/", since="yesterday")
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (400, "/since")


@pytest.mark.parametrize(
    "case",
    [
        ("get", "nothing/", None, {}, 404, "not_found"),
        ("get", "images", None, {}, 404, "not_found"),
        ("get", "teams/shop/", None, {"Authorization": ""}, 401, "not_authenticated"),
        ("get", "teams/shop/", None, {"Authorization": "Bearer gdk_pat_x"}, 401, "authentication_failed"),
        ("delete", "teams/", None, {}, 405, "method_not_allowed"),
        ("post", "teams/", "{not json", {}, 400, "parse_error"),
        ("post", "teams/", "[]", {}, 400, "invalid"),
        ("get", "teams/", None, {"Accept": "text/html"}, 406, "not_acceptable"),
        ("get", "teams/?limit=201", None, {}, 400, "invalid"),
        ("get", "teams/?cursor=mine", None, {}, 400, "invalid"),
        ("get", "teams/none/", None, {}, 404, "not_found"),
        ("get", "promotions/999999999999999999999999/", None, {}, 404, "not_found"),
    ],
)
def test_every_error_is_a_problem_with_its_request_id(dock: Any, case: Any) -> None:
    method, path, body, headers, status, code = case
    sent = Caller(dock.owner).headers | {"X-Request-Id": "my-request-1"} | headers
    more = {"data": body, "content_type": "application/json"} if body is not None else {}
    answer = getattr(Client(), method)(f"/api/v1/{path}", headers=sent, **more)
    problem = answer.json()
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"urn:gravingdock:problem:{code}")
    assert (problem["request_id"], answer["X-Request-Id"]) == ("my-request-1", "my-request-1")
    if status == 400 and code == "invalid":
        assert problem["errors"]
    if status == 405:
        assert "GET" in answer["Allow"]
    if status == 401:
        assert answer["WWW-Authenticate"].startswith("Bearer")


def test_internal_error_is_a_problem(dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifecycle.api.authority.roles_with_counts", lambda: 1 / 0)
    client = Client(raise_request_exception=False)
    answer = client.get("/api/v1/roles/", headers=Caller(dock.owner).headers)
    assert (answer.status_code, answer["Content-Type"], answer.json()["code"]) == (
        500,
        "application/problem+json",
        "internal_error",
    )


LISTS = (
    "teams/",
    "teams/shop/grants/",
    "teams/shop/robots/",
    "teams/shop/environments/",
    "roles/",
    "tokens/",
    "jobs/",
    "audit-events/",
)


@pytest.mark.parametrize("path", LISTS)
def test_list_uses_as_many_queries_for_three_rows_as_for_one(path: str) -> None:
    admin = User.objects.create(username="admin", is_superuser=True)
    team = services.create_team(actor=admin, slug="shop", name="Shop")
    caller = Caller(admin)
    _rows(team, admin, 1)
    one = _queries(caller, path)
    _rows(team, admin, 3)
    assert _queries(caller, path) == one <= 8


def _rows(team: Any, admin: User, count: int) -> None:
    from lifecycle.authority.services.environments import create_environment

    for number in range(count):
        if User.objects.filter(username=f"p{number}").exists():
            continue
        User.objects.create(username=f"p{number}")
        services.add_member(team.pk, actor=admin, username=f"p{number}", role="viewer")
        services.create_robot(team.pk, actor=admin, name=f"r{number}")
        services.create_role(actor=admin, slug=f"role-{number}", name="", verbs=["image.view"])
        services.create_team(actor=admin, slug=f"team-{number}", name="")
        services.create_api_token(admin, actor=admin, name=f"t{number}")
        create_environment(team, actor=admin, slug=f"e{number}", name="e", prefix=f"e{number}")
        Job.objects.create(kind="scan", subject_id=number, actor=admin)


def _queries(caller: Caller, path: str) -> int:
    caller.get(path)
    with CaptureQueriesContext(connection) as queries:
        assert caller.get(path).status_code == 200
    return len(queries)


def test_admins_create_reset_deactivate_and_reactivate_people(admin: Caller) -> None:
    made = admin.post("people/", {"username": "kim", "full_name": "Kim Lee", "email": "kim@example.com"})
    assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
    kim = made.json()
    assert (kim["username"], kim["full_name"], kim["is_admin"], kim["is_active"]) == ("kim", "Kim Lee", False, True)
    assert "/account/link/" in kim["secret"]
    assert admin.post("people/", {"username": "kim"}).json()["code"] == "conflict"
    assert "secret" not in admin.get(f"people/{kim['id']}/").json()
    listed = admin.get("people/", q="ki").json()["results"]
    assert [(row["username"], "secret" in row) for row in listed] == [("kim", False)]
    reset = admin.post(f"people/{kim['id']}/reset-password/", {"with_password": True}).json()
    assert (reset["must_change_password"], User.objects.get(username="kim").check_password(reset["secret"])) == (
        True,
        True,
    )
    assert admin.post(f"people/{kim['id']}/verify-mail/").json()["email_verified_at"] is not None
    assert admin.put(f"people/{kim['id']}/admin/", {}).json()["is_admin"] is True
    assert admin.delete(f"people/{kim['id']}/admin/").json()["is_admin"] is False
    assert admin.post(f"people/{kim['id']}/deactivate/").json()["is_active"] is False
    assert admin.post(f"people/{kim['id']}/reset-password/").json()["code"] == "conflict"
    back = admin.post(f"people/{kim['id']}/reactivate/").json()
    assert (back["is_active"], "/account/link/" in back["secret"]) == (True, True)


def test_repeated_request_for_a_person_does_not_show_the_secret_again(admin: Caller) -> None:
    admin.headers["Idempotency-Key"] = "one"
    first = admin.post("people/", {"username": "kim"}).json()
    again = admin.post("people/", {"username": "kim"}).json()
    assert (first["id"], again["secret"], again["secret_was_shown_once"]) == (again["id"], None, True)
    assert User.objects.filter(username="kim").count() == 1
