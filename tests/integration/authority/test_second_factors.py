"""Second factors (security.md G14, ASVS 6.5.1): each works once, who needs one sets it up first."""

from __future__ import annotations

import html
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from freezegun import freeze_time

from accounts.models import Role, User
from config.embedded import keys
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter, services
from lifecycle.authority.models import Passkey, RecoveryCode, RoleGrant, TotpSecret
from lifecycle.authority.second_factors import new_totp_secret, totp_code, use_code
from lifecycle.authority.sessions import sessions_of
from lifecycle.core import clock
from lifecycle.notices.models import InboxItem
from tests.clients import Caller, browser
from tests.factories import dock
from tests.fakes.passkeys import PRESENT, Authenticator

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough one"
CODE = re.compile(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}")


@pytest.fixture
def kim(db: None) -> User:
    return User.objects.create_user("kim", password=PASSWORD)


def with_password(name: str = "kim") -> tuple[Client, Any]:
    client = Client()
    return client, client.post("/accounts/sign-in/", {"login": name, "password": PASSWORD})


def signed_in(name: str = "kim") -> Client:
    client, answer = with_password(name)
    assert answer["Location"] == "/"
    return client


def code_now(secret: str, *, steps: int = 0) -> str:
    return totp_code(secret, int(clock.now().timestamp()) // 30 + steps)


def set_up_totp(client: Client) -> tuple[str, list[str]]:
    """Set up an authenticator app on the page; return (secret, recovery codes that the response shows)."""
    page = client.get("/account/security/authenticator/").content.decode()
    secret = re.search(r'name="secret" value="([A-Z2-7]{32})"', page)[1]  # type: ignore[index]  # it is there
    answer = client.post("/account/security/authenticator/", {"secret": secret, "code": code_now(secret, steps=-1)})
    assert answer.status_code in {200, 302}, answer.content
    return secret, CODE.findall(answer.content.decode())


def options_in(page: Any) -> dict[str, Any]:
    found = re.search(r'data-options="([^"]+)"', page.content.decode())
    assert found, page.content.decode()
    options: dict[str, Any] = json.loads(html.unescape(found[1]))
    return options


def add_passkey(client: Client, *, name: str = "laptop") -> tuple[Authenticator, Any]:
    key = Authenticator(settings.PUBLIC_URL)
    made = key.create(options_in(client.get("/account/security/passkeys/new/")))
    return key, client.post("/account/security/passkeys/new/", {"name": name, "credential": json.dumps(made)})


def is_in(client: Client) -> bool:
    return client.get("/images/").status_code == 200


def second_step(client: Client, **form: str) -> Any:
    return client.post("/account/second-factor/", form)


def test_totp_is_set_up_and_then_asked_for_at_sign_in(kim: User) -> None:
    first = signed_in()
    secret, codes = set_up_totp(first)
    assert (is_in(first), len(set(codes))) == (True, 10)
    client, answer = with_password()
    assert answer["Location"] == "/account/second-factor/"
    assert not is_in(client)
    assert second_step(client, code="000000").status_code == 422
    assert not is_in(client)
    assert second_step(client, code=code_now(secret)).status_code == 302
    assert is_in(client)
    actions = list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))
    assert actions == ["session.started", "second_factor.added", "second_factor.refused", "session.started"]


def test_asvs_6_5_1_totp_code_works_once(kim: User) -> None:
    secret, _ = set_up_totp(signed_in())
    code = code_now(secret)
    assert [use_code(kim, code), use_code(kim, code)] == ["totp", ""]
    # Nor does the code of an earlier step work after a later one.
    assert use_code(kim, code_now(secret, steps=-1)) == ""
    assert use_code(kim, code_now(secret, steps=1)) == "totp"


def test_code_of_the_set_up_does_not_sign_in(kim: User) -> None:
    secret, _ = set_up_totp(signed_in())
    client, _ = with_password()
    assert second_step(client, code=code_now(secret, steps=-1)).status_code == 422
    assert second_step(client, code=code_now(secret)).status_code == 302


def test_old_code_is_wrong(kim: User) -> None:
    secret, _ = set_up_totp(signed_in())
    code = code_now(secret)
    with freeze_time(clock.now() + timedelta(minutes=2)):
        assert use_code(kim, code) == ""
        assert use_code(kim, code_now(secret)) == "totp"


def test_totp_secret_is_sealed_and_rotated(kim: User) -> None:
    secret, _ = set_up_totp(signed_in())
    row = TotpSecret.objects.get(user=kim)
    stored = bytes(row.secret_sealed)
    assert stored.startswith(b"GD1")
    assert secret.encode() not in stored
    old, settings.FIELD_KEY = settings.FIELD_KEY, keys.fernet_key()
    settings.FIELD_KEYS_OLD = [old]
    try:
        call_command("rotate_keys", verbosity=0)
        row.refresh_from_db()
        assert bytes(row.secret_sealed) != stored
        assert use_code(kim, code_now(secret)) == "totp"
    finally:
        settings.FIELD_KEY, settings.FIELD_KEYS_OLD = old, []


def test_g14_recovery_code_is_hashed_and_works_once(kim: User) -> None:
    _, codes = set_up_totp(signed_in())
    stored = b"".join(bytes(row.secret_sha256) for row in RecoveryCode.objects.all())
    assert not any(code.replace("-", "").encode() in stored for code in codes)
    client, _ = with_password()
    assert second_step(client, code=codes[0].lower()).status_code == 302
    assert is_in(client)
    again, _ = with_password()
    assert second_step(again, code=codes[0]).status_code == 422
    assert second_step(again, code=codes[1]).status_code == 302
    left = [
        event.details["left"] for event in AuditEvent.objects.filter(action="second_factor.code_used").order_by("pk")
    ]
    assert left == [9, 8]


def test_new_recovery_codes_end_the_old_ones(kim: User) -> None:
    client = signed_in()
    secret, codes = set_up_totp(client)
    client.post("/account/confirm/", {"code": code_now(secret)})
    page = client.post("/account/security/recovery-codes/").content.decode()
    fresh = CODE.findall(page)
    assert (len(fresh), set(fresh) & set(codes)) == (10, set())
    assert [use_code(kim, codes[0]), use_code(kim, fresh[0])] == ["", "recovery"]


def test_passkey_signs_in_and_its_answer_works_once(kim: User) -> None:
    key, answer = add_passkey(signed_in())
    assert len(CODE.findall(answer.content.decode())) == 10
    client, _ = with_password()
    signed = key.get(options_in(client.get("/account/second-factor/")))
    assert second_step(client, assertion=json.dumps(signed)).status_code == 302
    assert is_in(client)
    again, _ = with_password()
    again.get("/account/second-factor/")
    assert second_step(again, assertion=json.dumps(signed)).status_code == 422
    assert not is_in(again)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 302),
        ({"origin": "https://evil.example"}, 422),
        ({"origin": "http://evil.localhost"}, 422),
        ({"rp_id": "evil.example"}, 422),
        ({"flags": PRESENT}, 422),  # without PIN or fingerprint
        ({"counter": -1}, 422),  # a copy: the counter does not grow
        ({"credential_id": b"another"}, 422),
    ],
)
def test_passkey_answer_for_something_else_is_refused(kim: User, change: dict[str, Any], status: int) -> None:
    key, _ = add_passkey(signed_in())
    client, _ = with_password()
    key.counter = 5
    second_step(client, assertion=json.dumps(key.get(options_in(client.get("/account/second-factor/")))))
    client, _ = with_password()
    for name, value in change.items():
        setattr(key, name, value)
    signed = key.get(options_in(client.get("/account/second-factor/")))
    assert second_step(client, assertion=json.dumps(signed)).status_code == status
    assert is_in(client) is (status == 302)


def test_passkey_of_another_person_does_not_sign_in(kim: User) -> None:
    User.objects.create_user("lee", password=PASSWORD)
    add_passkey(signed_in())
    other, _ = add_passkey(signed_in("lee"))
    client, _ = with_password()
    signed = other.get(options_in(client.get("/account/second-factor/")))
    assert second_step(client, assertion=json.dumps(signed)).status_code == 422


def test_registration_must_answer_its_challenge(kim: User) -> None:
    client, key = signed_in(), Authenticator(settings.PUBLIC_URL)
    old = key.create(options_in(client.get("/account/security/passkeys/new/")))
    client.get("/account/security/passkeys/new/")  # another challenge
    form = {"name": "laptop", "credential": json.dumps(old)}
    refused = client.post("/account/security/passkeys/new/", form)
    assert (refused.status_code, Passkey.objects.exists()) == (422, False)
    assert 'value="laptop"' in refused.content.decode()
    fresh = key.create(options_in(refused))
    form = {"name": "laptop", "credential": json.dumps(fresh)}
    assert client.post("/account/security/passkeys/new/", form).status_code == 200
    assert Passkey.objects.get().user == kim


def test_b7_wrong_codes_share_the_budget_of_passwords(kim: User) -> None:
    set_up_totp(signed_in())
    client, _ = with_password()
    for _ in range(limiter.PER_ACCOUNT):
        assert second_step(client, code="not a code of mine").status_code == 422
    assert with_password()[1].status_code == 429


def test_wrong_codes_of_an_app_end_before_recovery_codes_do(kim: User) -> None:
    secret, codes = set_up_totp(signed_in())
    client, _ = with_password()
    for _ in range(5):
        assert second_step(client, code="000000").status_code == 422
    assert second_step(client, code=code_now(secret)).status_code == 429
    assert second_step(client, code=codes[0]).status_code == 302  # nobody can guess one


def test_change_of_factors_ends_other_sessions(kim: User) -> None:
    first, second = signed_in(), signed_in()
    set_up_totp(first)
    assert (is_in(first), is_in(second), sessions_of(kim).count()) == (True, False, 1)


def test_g14_removal_needs_the_second_factor_again_and_is_told(kim: User) -> None:
    client = signed_in()
    secret, _ = set_up_totp(client)
    # The password of a moment ago is not enough any more.
    answer = client.post("/account/security/authenticator/remove/")
    assert answer["Location"].startswith("/account/confirm/")
    assert TotpSecret.objects.exists()
    assert client.post("/account/confirm/", {"code": "000000"}).status_code == 422
    confirmed = client.post("/account/confirm/", {"code": code_now(secret), "next": "/account/security/"})
    assert confirmed["Location"] == "/account/security/"
    assert client.post("/account/security/authenticator/remove/").status_code == 302
    assert not TotpSecret.objects.exists()
    assert not RecoveryCode.objects.exists()
    texts = [item.notice.text for item in InboxItem.objects.filter(person=kim).order_by("pk")]
    assert [text.split(".")[0] for text in texts] == [
        "A second factor was added: an authenticator app",
        "A second factor was removed: an authenticator app",
    ]
    assert "127.0.0.1" in texts[1]
    page = client.get("/notices/").content.decode()
    assert "A second factor was removed" in page
    assert signed_in()


def test_confirmation_is_old_after_five_minutes(kim: User) -> None:
    client = signed_in()
    secret, _ = set_up_totp(client)
    client.post("/account/confirm/", {"code": code_now(secret)})
    with freeze_time(clock.now() + timedelta(minutes=6)):
        assert client.post("/account/security/authenticator/remove/")["Location"].startswith("/account/confirm/")
    assert TotpSecret.objects.exists()


def test_without_second_factor_the_password_confirms(kim: User) -> None:
    client = signed_in()
    with freeze_time(clock.now() + timedelta(minutes=6)):
        away = client.get("/account/security/authenticator/")
        assert away["Location"] == "/account/confirm/?next=%2Faccount%2Fsecurity%2Fauthenticator%2F"
        before = client.session.session_key
        assert client.post("/account/confirm/", {"password": "wrong"}).status_code == 422
        form = {"password": PASSWORD, "next": "/account/security/authenticator/"}
        assert client.post("/account/confirm/", form)["Location"] == "/account/security/authenticator/"
        assert client.session.session_key != before  # ASVS 7.2.4
        assert client.get("/account/security/authenticator/").status_code == 200


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "/\\evil.example", ""])
def test_confirmation_leads_only_to_this_site(kim: User, back: str) -> None:
    answer = signed_in().post("/account/confirm/", {"password": PASSWORD, "next": back})
    assert answer["Location"] == "/account/security/"


def test_role_that_needs_a_second_factor_leads_to_set_one_up_first(kim: User) -> None:
    team = dock.team("shop")
    RoleGrant.objects.create(user=kim, team=team, role=Role.objects.get(slug="approver"))
    lee = User.objects.create_user("lee", password=PASSWORD)
    RoleGrant.objects.create(user=lee, team=team, role=Role.objects.get(slug="viewer"))
    admin = User.objects.create(username="admin", is_superuser=True)
    client, other = signed_in(), signed_in("lee")
    services.change_security(
        actor=admin, second_factor_for_admins=False, second_factor_for_roles=["approver"], step_up_is_on=False
    )
    assert is_in(other)
    assert client.get("/images/")["Location"] == "/account/security/"
    assert client.post("/account/tokens/", {"name": "x", "days": "1"})["Location"] == "/account/security/"
    refused = client.get("/api/v1/images/")
    assert (refused.status_code, refused.json()["code"]) == (403, "second_factor_required")
    assert "Your role requires a second factor" in client.get("/account/security/").content.decode()
    secret, _ = set_up_totp(client)
    assert is_in(client)
    # The only one stays.
    client.post("/account/confirm/", {"code": code_now(secret)})
    assert client.post("/account/security/authenticator/remove/").status_code == 409
    add_passkey(client)
    client.post("/account/confirm/", {"code": code_now(secret, steps=1)})
    assert client.post("/account/security/authenticator/remove/").status_code == 302


def test_admins_can_be_required_to_have_one(kim: User) -> None:
    kim.is_superuser = True
    kim.save()
    client = signed_in()
    form = {"second_factor_for_admins": "on", "revision": "0"}
    # Who has none cannot lock all admins out.
    assert client.post("/security/", form).status_code == 422
    set_up_totp(client)
    assert client.post("/security/", form).status_code == 302
    other = User.objects.create_user("lee", password=PASSWORD, is_superuser=True)
    blocked = signed_in("lee")
    assert blocked.get("/people/")["Location"] == "/account/security/"
    assert client.get("/people/").status_code == 200
    other.is_superuser = False
    other.save()
    assert is_in(blocked)
    event = AuditEvent.objects.get(action="security.changed")
    assert (
        event.details["before"]["second_factor_for_admins"],
        event.details["after"]["second_factor_for_admins"],
    ) == (
        False,
        True,
    )


def test_security_settings_over_the_api(kim: User) -> None:
    admin = User.objects.create(username="admin", is_superuser=True)
    assert Caller(kim).get("security/").status_code == 403
    found = Caller(admin).get("security/")
    body = {"second_factor_for_admins": False, "second_factor_for_roles": ["owner"], "step_up_is_on": True}
    assert found.json() == {**body, "second_factor_for_roles": [], "step_up_is_on": False, "revision": 0}
    assert Caller(admin).put("security/", body).status_code == 428
    saved = Caller(admin).put("security/", body, If_Match=found["ETag"])
    assert (saved.status_code, saved.json()) == (200, {**body, "revision": 1})
    assert Caller(admin).put("security/", body, If_Match=found["ETag"]).status_code == 412
    wrong = Caller(admin).put("security/", {**body, "second_factor_for_roles": ["nobody"]}, If_Match=saved["ETag"])
    assert (wrong.status_code, wrong.json()["code"]) == (400, "malformed")


def test_admin_and_operator_reset_lost_factors(kim: User) -> None:
    client = signed_in()
    set_up_totp(client)
    admin = User.objects.create(username="admin", is_superuser=True)
    assert Caller(kim).delete(f"people/{kim.pk}/second-factors/").status_code == 403
    assert Caller(admin).delete(f"people/{kim.pk}/second-factors/").status_code == 204
    assert not is_in(client)
    assert Caller(admin).delete(f"people/{kim.pk}/second-factors/").status_code == 409
    again = signed_in()  # with the password alone
    set_up_totp(again)
    call_command("reset_second_factor", "kim")
    assert not TotpSecret.objects.exists()
    assert AuditEvent.objects.filter(action="second_factor.reset").count() == 2
    assert InboxItem.objects.filter(person=kim, notice__text__contains="An admin removed all").count() == 2


def test_page_warns_about_nothing_that_it_cannot_do(kim: User) -> None:
    secret = new_totp_secret()
    client = signed_in()
    wrong = client.post("/account/security/authenticator/", {"secret": secret, "code": "000000"})
    page = wrong.content.decode()
    assert (wrong.status_code, secret in page) == (422, True)  # the app need not be set up again
    assert "The code is wrong" in page


def test_security_page_lists_no_role_of_machines() -> None:
    admin = User.objects.create(username="root", is_superuser=True)
    page = browser(admin).get("/security/").content.decode()
    assert 'value="viewer"' in page
    assert 'value="agent"' not in page
