"""`Idempotency-Key`: repeated POSTs have one effect and the same answer. No secret is stored."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiToken, Role, Team, User
from accounts.queries import system_user
from lifecycle.api import idempotency
from lifecycle.api.models import IdempotencyKey
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant
from lifecycle.promotion.models import PromotionRequest

pytestmark = pytest.mark.django_db


class Caller:
    """An API client with the token of one user."""

    def __init__(self, user: User) -> None:
        self.headers = {"Authorization": f"Bearer {tokens.create_token(user, kind='pat', name='t')[1]}"}

    def post(self, path: str, body: Any, key: str = "", **more: Any) -> Any:
        headers = self.headers | ({"Idempotency-Key": key} if key else {})
        return Client().post(f"/api/v1/{path}", body, content_type="application/json", headers=headers, **more)


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create(username="admin", is_superuser=True)


def test_repeated_request_gets_same_answer_without_second_effect(admin: User) -> None:
    caller, key = Caller(admin), str(uuid4())
    first = caller.post("teams/", {"slug": "web"}, key)
    again = caller.post("teams/", {"slug": "web"}, key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert ("Idempotency-Replayed" in first, again["Idempotency-Replayed"]) == (False, "true")
    assert AuditEvent.objects.filter(action="team.created").count() == 1
    assert caller.post("teams/", {"slug": "web"}).status_code == 409  # without a key it is a new request


@pytest.mark.parametrize("change", ["body", "path"])
def test_key_of_another_request_is_refused(admin: User, change: str) -> None:
    caller = Caller(admin)
    caller.post("teams/", {"slug": "web"}, "k1")
    if change == "body":
        answer = caller.post("teams/", {"slug": "other"}, "k1")
    else:
        answer = caller.post("roles/", {"slug": "web"}, "k1")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert answer["Content-Type"] == "application/problem+json"
    assert list(Team.objects.values_list("slug", flat=True)) == ["web"]


def test_key_belongs_to_its_user(admin: User) -> None:
    other = User.objects.create(username="other", is_superuser=True)
    assert Caller(admin).post("teams/", {"slug": "web"}, "k1").status_code == 201
    answer = Caller(other).post("teams/", {"slug": "api"}, "k1")
    assert (answer.status_code, "Idempotency-Replayed" in answer) == (201, False)


@pytest.mark.parametrize("key", ["a" * 129, "with space", "ümlaut", '"', '""'])
def test_malformed_key_is_refused(admin: User, key: str) -> None:
    answer = Caller(admin).post("teams/", {"slug": "web"}, key)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_idempotency_key")
    assert not Team.objects.exists()


def test_quoted_and_bare_key_are_equal(admin: User) -> None:
    caller = Caller(admin)
    assert caller.post("teams/", {"slug": "web"}, '"k1"').status_code == 201
    assert caller.post("teams/", {"slug": "web"}, "k1")["Idempotency-Replayed"] == "true"


def test_only_permanent_refusals_are_replayed(admin: User) -> None:
    kim = User.objects.create(username="kim")
    caller = Caller(kim)
    assert caller.post("teams/", {"slug": "web"}, "k1").status_code == 403
    again = caller.post("teams/", {"slug": "web"}, "k1")
    assert (again.status_code, again["Idempotency-Replayed"]) == (403, "true")
    assert again["Content-Type"] == "application/problem+json"
    conflict = Caller(admin)
    services.create_team(actor=system_user(), slug="web", name="")
    assert conflict.post("teams/", {"slug": "web"}, "k2").status_code == 409
    Team.objects.update(slug="was-web")
    assert conflict.post("teams/", {"slug": "web"}, "k2").status_code == 201
    wrong = Client().post("/api/v1/teams/", {}, content_type="application/json", headers={"Idempotency-Key": "k3"})
    assert wrong.status_code == 401
    assert not IdempotencyKey.objects.filter(key="k3").exists()


def test_internal_error_stores_no_answer_and_has_no_effect(admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(admin)

    def broken(*_args: Any, **_more: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("lifecycle.authority.services.teams.audit.record", broken)
        client = Client(raise_request_exception=False)
        answer = client.post(
            "/api/v1/teams/", {"slug": "web"}, "application/json", headers=caller.headers | {"Idempotency-Key": "k1"}
        )
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert not IdempotencyKey.objects.exists()
    assert caller.post("teams/", {"slug": "web"}, "k1").status_code == 201


def test_request_has_no_effect_when_its_answer_is_not_stored(admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(admin)

    def die(*_args: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("lifecycle.api.idempotency._keep", die)
        client = Client(raise_request_exception=False)
        headers = caller.headers | {"Idempotency-Key": "k1"}
        assert client.post("/api/v1/teams/", {"slug": "web"}, "application/json", headers=headers).status_code == 500
    assert not Team.objects.exists()
    assert not AuditEvent.objects.exists()
    assert caller.post("teams/", {"slug": "web"}, "k1").status_code == 201


def test_answer_is_kept_for_a_day(admin: User) -> None:
    caller = Caller(admin)
    caller.post("teams/", {"slug": "web"}, "k1")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert caller.post("teams/", {"slug": "web"}, "k1").status_code == 409  # the key expired: a new request
    caller.post("teams/", {"slug": "api"}, "k2")
    IdempotencyKey.objects.create(user=admin, key="old", request_sha256=b"", status=201)
    IdempotencyKey.objects.filter(key="old").update(created_at=timezone.now() - timedelta(hours=25))
    assert idempotency.forget_old() == 1
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["k2"]


def test_replay_of_created_token_omits_the_secret(dock: Any) -> None:
    robot = services.create_robot(dock.team.pk, actor=dock.owner, name="ci")
    caller = Caller(dock.owner)
    for path in ("tokens/", f"teams/shop/robots/{robot.pk}/tokens/"):
        before = ApiToken.objects.count()
        first = caller.post(path, {"name": "laptop"}, f"k {path}".replace(" ", "-"))
        assert (first.status_code, first["Cache-Control"]) == (201, "no-store")
        text = first.json()["token"]
        assert tokens.find_token(text) is not None
        again = caller.post(path, {"name": "laptop"}, f"k {path}".replace(" ", "-")).json()
        assert (again["token"], again["secret_was_shown_once"], again["id"]) == (None, True, first.json()["id"])
        assert ApiToken.objects.count() == before + 1
        kept = str(list(IdempotencyKey.objects.values("body", "location")))
        assert text not in kept
        assert tokens.TOKEN.search(kept) is None


def test_kept_answer_is_authorized_again(dock: Any, request_: Any) -> None:
    caller, path = Caller(dock.approver), f"promotions/{request_.pk}/approve/"
    first = caller.post(path, {"reason": "fine"}, "k1")
    assert first.status_code == 200
    assert caller.post(path, {"reason": "fine"}, "k1").json() == first.json()
    RoleGrant.objects.filter(user=dock.approver).update(role=Role.objects.get(slug="viewer"))
    refused = caller.post(path, {"reason": "fine"}, "k1")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    assert AuditEvent.objects.filter(action="access.refused", actor_name="approver").exists()
    RoleGrant.objects.filter(user=dock.approver).delete()
    hidden = caller.post(path, {"reason": "fine"}, "k1")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")
    assert "digest" not in hidden.json()


def test_kept_answer_of_a_former_admin_is_refused(admin: User) -> None:
    caller = Caller(admin)
    assert caller.post("teams/", {"slug": "web"}, "k1").status_code == 201
    assert caller.post("teams/", {"slug": "web"}, "k1")["Idempotency-Replayed"] == "true"
    User.objects.filter(pk=admin.pk).update(is_superuser=False)
    assert caller.post("teams/", {"slug": "web"}, "k1").status_code == 403


def test_every_post_has_a_check_for_its_kept_answers() -> None:
    from lifecycle.api.replaying import CHECKS
    from lifecycle.api.urls import urlpatterns

    patterns = [entry for each in urlpatterns for entry in getattr(each, "url_patterns", [each])]
    posts = {
        entry.name
        for entry in patterns
        if "post" in getattr(entry.callback, "actions", ())
        or (hasattr(entry.callback, "view_class") and hasattr(entry.callback.view_class, "post"))
        or (hasattr(entry.callback, "cls") and not hasattr(entry.callback, "actions")
            and hasattr(entry.callback.cls, "post"))
    }  # fmt: skip
    assert "promotion-approve" in posts
    assert posts == set(CHECKS)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["team", "promotion"])
def test_fifty_concurrent_requests_have_one_effect(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "team":
        caller = Caller(User.objects.create(username="admin", is_superuser=True))
        path, body = "teams/", {"slug": "web"}
    else:
        dock = request.getfixturevalue("dock")
        caller = Caller(dock.requester)
        path = "promotions/"
        body = {"digest": dock.image.digest, "repository": "shop/api", "environment": "dev", "reason": "x"}
    barrier, answers = threading.Barrier(50), []

    def send() -> None:
        try:
            barrier.wait(timeout=60)
            answers.append(caller.post(path, body, "one-key"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(answers) == 50
    made = [answer for answer in answers if answer.status_code == 201]
    waiting = [answer for answer in answers if answer.status_code == 409]
    assert len(made) + len(waiting) == 50
    assert {answer.json()["code"] for answer in waiting} <= {"idempotency_key_in_use"}
    assert sum("Idempotency-Replayed" not in answer for answer in made) == 1
    assert len({answer.content for answer in made if "Idempotency-Replayed" not in answer}) == 1
    assert all(answer.json() == made[0].json() for answer in made)
    model = Team if kind == "team" else PromotionRequest
    assert model.objects.count() == 1
    assert caller.post(path, body, "one-key").json() == made[0].json()


@pytest.mark.django_db(transaction=True)
def test_repeat_gets_409_while_first_request_runs(admin: User) -> None:
    caller = Caller(admin)
    name = f"idempotency:{admin.pk}:k1"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7008))", [name])
    try:
        answer = _in_thread(lambda: caller.post("teams/", {"slug": "web"}, "k1"))
        assert (answer.status_code, answer.json()["code"], answer["Retry-After"]) == (
            409,
            "idempotency_key_in_use",
            "1",
        )
        assert not Team.objects.exists()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 7008))", [name])
    assert _in_thread(lambda: caller.post("teams/", {"slug": "web"}, "k1")).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_view_outside_transaction_is_replayed_too(
    dock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lifecycle.rebuild import planning

    seen = []
    real = planning.plan

    def plan(*args: Any, **more: Any) -> Any:
        seen.append(connection.in_atomic_block)
        return real(*args, **more)

    monkeypatch.setattr("lifecycle.rebuild.planning.plan", plan)
    caller = Caller(dock.owner)
    first = caller.post("rebuild-waves/", {"base": "shop/api:1.0"}, "k1")
    again = caller.post("rebuild-waves/", {"base": "shop/api:1.0"}, "k1")
    assert seen == [False]
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again["Idempotency-Replayed"] == "true"


def _in_thread(function: Any) -> Any:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    return results[0]
