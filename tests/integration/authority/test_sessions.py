"""Browser sessions: they name their user, end by themselves, and can be listed and ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from freezegun import freeze_time

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.models import BrowserSession
from lifecycle.authority.sessions import SessionStore, sessions_of
from lifecycle.core import clock
from tests.clients import Caller

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough one"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def kim(db: None) -> User:
    return User.objects.create_user("kim", password=PASSWORD)


def signed_in(name: str = "kim", **more: Any) -> Client:
    client = Client(headers={"User-Agent": FIREFOX}, **more)
    assert client.post("/accounts/sign-in/", {"login": name, "password": PASSWORD}).status_code == 302
    return client


def is_in(client: Client) -> bool:
    return client.get("/account/security/").status_code == 200


def test_page_lists_own_sessions_with_browser_and_address(kim: User) -> None:
    first, _second = signed_in(), signed_in(REMOTE_ADDR="192.0.2.7")
    page = first.get("/account/security/").content.decode()
    assert page.count("Firefox on Linux") >= 2
    assert "192.0.2.7" in page
    assert page.count("This browser") == 1
    for row in sessions_of(kim):
        assert row.session_key not in page  # it is the credential


def test_one_session_can_be_ended_and_only_ones_own(kim: User) -> None:
    first, second = signed_in(), signed_in()
    User.objects.create_user("lee", password=PASSWORD)
    other = signed_in("lee")
    row = BrowserSession.objects.get(session_key=second.session.session_key)
    assert other.post(f"/account/sessions/{row.public_id}/end/").status_code == 404
    assert is_in(second)
    assert first.post(f"/account/sessions/{row.public_id}/end/").status_code == 302
    assert (is_in(first), is_in(second)) == (True, False)
    event = AuditEvent.objects.get(action="session.revoked")
    assert (event.actor, event.details) == (kim, {"user": "kim", "count": 1})


def test_ending_this_session_signs_out(kim: User) -> None:
    client = signed_in()
    row = sessions_of(kim).get()
    assert client.post(f"/account/sessions/{row.public_id}/end/")["Location"] == "/accounts/sign-in/"
    assert not is_in(client)


def test_all_other_sessions_can_be_ended(kim: User) -> None:
    clients = [signed_in() for _ in range(3)]
    assert clients[0].post("/account/sessions/end-others/").status_code == 302
    assert [is_in(client) for client in clients] == [True, False, False]


def test_password_change_leaves_one_row(kim: User) -> None:
    client = signed_in()
    signed_in()
    form = {"oldpassword": PASSWORD, "password1": "yet another long one", "password2": "yet another long one"}
    assert client.post("/accounts/password/change/", form).status_code == 302
    assert (is_in(client), sessions_of(kim).count()) == (True, 1)


def test_deactivation_deletes_sessions(kim: User) -> None:
    client, admin = signed_in(), User.objects.create(username="admin", is_superuser=True)
    services.deactivate(kim.pk, actor=admin)
    assert (BrowserSession.objects.filter(user=kim).exists(), is_in(client)) == (False, False)


def test_admin_ends_sessions_of_a_person_by_page_and_api(kim: User) -> None:
    admin = User.objects.create(username="admin", is_superuser=True, password=kim.password)
    client, page = signed_in(), signed_in("admin")
    assert "Firefox on Linux" in page.get(f"/people/{kim.pk}/").content.decode()
    assert page.post(f"/people/{kim.pk}/end-sessions/").status_code == 302
    assert not is_in(client)
    client = signed_in()
    assert Caller(kim).delete(f"people/{admin.pk}/sessions/").status_code == 403
    assert Caller(admin).delete(f"people/{kim.pk}/sessions/").status_code == 204
    assert (is_in(client), is_in(page)) == (False, True)


@pytest.mark.parametrize(("hours", "lives"), [(23, True), (25, False)])
def test_idle_session_ends(kim: User, hours: int, lives: bool) -> None:
    client = signed_in()
    with freeze_time(clock.now() + timedelta(hours=hours)):
        assert is_in(client) is lives


def test_session_in_use_ends_at_the_latest_after_two_weeks(kim: User) -> None:
    client, start = signed_in(), clock.now()
    for hours in range(20, 14 * 24, 20):
        with freeze_time(start + timedelta(hours=hours)):
            assert is_in(client), hours
    with freeze_time(start + timedelta(hours=14 * 24 + 1)):
        assert not is_in(client)
        SessionStore.clear_expired()
    assert not BrowserSession.objects.exists()


def test_sign_in_takes_another_key(kim: User) -> None:
    client = Client()
    client.get("/accounts/sign-in/")
    session = client.session
    session["cart"] = "x"
    session.save()
    before = session.session_key
    client.post("/accounts/sign-in/", {"login": "kim", "password": PASSWORD})
    assert client.session.session_key != before
    assert not BrowserSession.objects.filter(session_key=before).exists()
