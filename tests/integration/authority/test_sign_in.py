"""Browser sign-in: shared budget of failures, no hints about accounts, every attempt in the audit log."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import connections
from django.test import Client

from accounts import tokens
from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter, services
from lifecycle.authority.models import CredentialFailure
from lifecycle.core.address import client_address
from lifecycle.tokens import endpoint

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough one"


@pytest.fixture
def kim(db: None) -> User:
    return User.objects.create_user("kim", password=PASSWORD)


def sign_in(name: str, password: str, **more: Any) -> Any:
    return Client().post("/accounts/sign-in/", {"login": name, "password": password}, **more)


def fail(name: str, times: int) -> None:
    for _ in range(times):
        limiter.note_failure(name, None)


def request_token(name: str, password: str) -> int:
    body = f"grant_type=password&username={name}&password={password}&service=gravingdock-registry".encode()
    statuses = []
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "REMOTE_ADDR": "192.0.2.9",
    }
    endpoint.application(environ, lambda status, _headers: statuses.append(int(status[:3])))
    return statuses[0]


def test_right_password_signs_in_and_counts_no_failure(kim: User) -> None:
    assert sign_in("kim", PASSWORD).status_code == 302
    assert not CredentialFailure.objects.exists()
    event = AuditEvent.objects.get(action="session.started")
    assert (event.actor, event.address) == (kim, "127.0.0.1")


def test_failed_sign_ins_look_the_same_for_any_account(kim: User) -> None:
    ended = User.objects.create_user("ended", password=PASSWORD)
    ended.is_active = False
    ended.save()
    robot = User.objects.create_user("shop+ci", password=PASSWORD)
    robot.kind = User.Kind.ROBOT
    robot.save()
    answers = [
        sign_in("kim", "wrong"),
        sign_in("ended", PASSWORD),
        sign_in("nobody", "wrong"),
        sign_in("shop+ci", PASSWORD),
    ]
    errors = [list(answer.context["form"].non_field_errors()) for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert errors == [["The user name or password is wrong. Check both, then try again."]] * 4
    events = AuditEvent.objects.filter(action="session.refused").order_by("pk")
    assert [event.details["user"] for event in events] == ["kim", "ended", "unknown", "shop+ci"]
    assert {event.outcome for event in events} == {"denied"}


@pytest.mark.parametrize("name", ["kim", "nobody"])
def test_spent_budget_refuses_right_password_for_any_account(kim: User, name: str) -> None:
    fail(name, limiter.PER_ACCOUNT)
    answer = sign_in(name, PASSWORD)
    assert (answer.status_code, answer["Retry-After"]) == (429, "300")
    assert "Too many wrong passwords for this account or address." in answer.content.decode()
    assert not Client().get("/images/").wsgi_request.user.is_authenticated


def test_budget_survives_success_and_cleared_cache(kim: User) -> None:
    fail("kim", limiter.PER_ACCOUNT - 1)
    assert sign_in("kim", PASSWORD).status_code == 302
    cache.clear()
    assert sign_in("kim", "wrong").status_code == 200
    assert sign_in("kim", PASSWORD).status_code == 429


def test_browser_token_endpoint_and_api_share_one_budget(kim: User) -> None:
    text = tokens.create_token(kim, kind="pat", name="t")[1]
    for number in range(limiter.PER_ACCOUNT):
        if number % 2:
            assert sign_in("kim", "wrong").status_code == 200
        else:
            assert request_token("kim", "wrong") == 401
    assert sign_in("kim", PASSWORD).status_code == 429
    assert request_token("kim", "wrong") == 429
    wrong = _same_lookup(text)
    api = Client().get("/api/v1/images/", headers={"Authorization": f"Bearer {wrong}"})
    assert (api.status_code, api.json()["code"], api["Content-Type"]) == (429, "throttled", "application/problem+json")
    assert api["Retry-After"] == "300"
    assert api.json()["detail"].endswith("Wait five minutes, then try again.")
    # A valid token still works: failed sign-ins with a username must not block the scripts of that user.
    assert Client().get("/api/v1/images/", headers={"Authorization": f"Bearer {text}"}).status_code == 200


def _same_lookup(text: str) -> str:
    """Return a well-formed token with the lookup of `text` and another secret."""
    body = text[: len("gdk_pat_") + 10] + "x" * 24
    return body + tokens._crc(body)


def test_guessed_token_counts_as_failure_and_revoked_token_does_not(kim: User) -> None:
    row, text = tokens.create_token(kim, kind="pat", name="t")
    for wrong, account in ((_same_lookup(text), "kim"), ("gdk_pat_nonsense", "")):
        assert Client().get("/api/v1/images/", headers={"Authorization": f"Bearer {wrong}"}).status_code == 401
        assert CredentialFailure.objects.latest("pk").account == account
    before = CredentialFailure.objects.count()
    services.revoke_api_token(row.pk, actor=kim)
    for _ in range(3):
        assert Client().get("/api/v1/images/", headers={"Authorization": f"Bearer {text}"}).status_code == 401
    assert CredentialFailure.objects.count() == before


def test_post_with_idempotency_key_counts_wrong_token_once(kim: User) -> None:
    headers = {"Authorization": "Bearer gdk_pat_nonsense", "Idempotency-Key": "k1"}
    assert Client().post("/api/v1/tokens/", {}, content_type="application/json", headers=headers).status_code == 401
    assert CredentialFailure.objects.count() == 1


def test_failures_without_account_are_not_limited_per_account() -> None:
    for _ in range(limiter.PER_ACCOUNT + 1):
        assert limiter.note_failure("", "192.0.2.1")
    assert limiter.note_failure("", "192.0.2.2")


def test_forwarded_address_of_client_is_ignored(kim: User) -> None:
    for number in range(3):
        sign_in("kim", "wrong", headers={"X-Forwarded-For": f"198.51.100.{number}"})
    assert set(CredentialFailure.objects.values_list("address", flat=True)) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("behind_proxy", "forwarded", "expected"),
    [
        (False, "198.51.100.1", "192.0.2.1"),
        (True, "198.51.100.1", "198.51.100.1"),
        (True, "203.0.113.66, 198.51.100.1", "198.51.100.1"),
        (True, "2001:DB8::1", "2001:db8::1"),
        (True, "", "192.0.2.1"),
        (True, "unknown", "192.0.2.1"),
    ],
)
def test_client_address_trusts_only_the_nearest_proxy(
    settings: Any, behind_proxy: bool, forwarded: str, expected: str
) -> None:
    settings.BEHIND_PROXY = behind_proxy
    assert client_address({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": forwarded}) == expected


def test_spellings_of_a_username_share_one_budget(kim: User) -> None:
    fail("kim", limiter.PER_ACCOUNT)
    for name in ("KIM", "Kim", " kim ", "\u212aim"):  # the last one begins with the Kelvin sign
        answer = sign_in(name, PASSWORD)
        assert answer.status_code == 429 or not answer.wsgi_request.user.is_authenticated


@pytest.mark.django_db(transaction=True)
def test_fifty_concurrent_sign_ins_stay_within_budget(kim: User, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[int] = []
    real = User.check_password
    monkeypatch.setattr(User, "check_password", lambda self, raw: checks.append(1) or real(self, raw))
    barrier, statuses = threading.Barrier(50), []

    def run() -> None:
        try:
            barrier.wait(timeout=60)
            statuses.append(sign_in("kim", "wrong").status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert (statuses.count(200), statuses.count(429)) == (limiter.PER_ACCOUNT, 50 - limiter.PER_ACCOUNT)
    assert len(checks) == limiter.PER_ACCOUNT  # no password check for the others


def test_unlock_account_allows_sign_in_again(kim: User) -> None:
    fail("kim", limiter.PER_ACCOUNT)
    assert sign_in("kim", PASSWORD).status_code == 429
    call_command("unlock_account", "kim", stdout=io.StringIO())
    assert sign_in("kim", PASSWORD).status_code == 302
    assert AuditEvent.objects.get(action="user.unlocked").details["user"] == "kim"


def test_password_change_ends_other_sessions(kim: User) -> None:
    first, second = Client(), Client()
    for client in (first, second):
        client.post("/accounts/sign-in/", {"login": "kim", "password": PASSWORD})
    form = {"oldpassword": PASSWORD, "password1": "yet another long one", "password2": "yet another long one"}
    assert first.get("/accounts/password/change/").status_code == 200
    assert first.post("/accounts/password/change/", form)["Location"] == "/account/"
    assert (first.get("/images/").status_code, second.get("/images/").status_code) == (200, 302)
    assert sign_in("kim", PASSWORD).status_code == 200
    assert sign_in("kim", "yet another long one").status_code == 302
    event = AuditEvent.objects.get(action="user.password_changed")
    assert (event.actor, "yet another" in str(bytes(event.canonical))) == (kim, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"oldpassword": "wrong"}, "Please type your current password."),
        ({"password1": "short", "password2": "short"}, "too short"),
        ({"password2": "another long one!"}, "You must type the same password each time."),
    ],
)
def test_invalid_form_does_not_change_password(kim: User, change: dict[str, str], words: str) -> None:
    client = Client()
    client.post("/accounts/sign-in/", {"login": "kim", "password": PASSWORD})
    form = {"oldpassword": PASSWORD, "password1": "yet another long one", "password2": "yet another long one"}
    assert words in client.post("/accounts/password/change/", form | change).content.decode()
    kim.refresh_from_db()
    assert kim.check_password(PASSWORD)


def test_password_change_limits_wrong_passwords(kim: User) -> None:
    client = Client()
    client.post("/accounts/sign-in/", {"login": "kim", "password": PASSWORD})
    form = {"oldpassword": "wrong", "password1": "yet another long one", "password2": "yet another long one"}
    statuses = [client.post("/accounts/password/change/", form).status_code for _ in range(limiter.PER_ACCOUNT + 1)]
    assert statuses == [200] * limiter.PER_ACCOUNT + [429]
    assert client.post("/accounts/password/change/", form | {"oldpassword": PASSWORD}).status_code == 429
