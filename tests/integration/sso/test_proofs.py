"""People with a provider and no password: they prove with it who they are, wherever others type their password."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.urls import reverse
from freezegun import freeze_time

from accounts.models import Identity, Role, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.authority.models import BrowserSession, RoleGrant, TotpSecret
from lifecycle.authority.second_factors import totp_code
from lifecycle.authority.sessions import sessions_of
from lifecycle.core import clock
from lifecycle.notices.models import InboxItem
from lifecycle.oidc.types import Person, Provider
from lifecycle.pages.sso import signing_in
from lifecycle.promotion.models import PromotionRequest
from lifecycle.sso import provisioning, services
from tests.clients import Caller
from tests.factories import dock as docks
from tests.factories.people import person

pytestmark = pytest.mark.django_db
ISSUER = "https://login.example.com"
KNOWN = Provider(
    ISSUER, f"{ISSUER}/auth", f"{ISSUER}/token", f"{ISSUER}/jwks", "", ("RS256",), uses_basic=True, names_itself=False
)


@pytest.fixture
def provider():
    root = person("root")
    User.objects.filter(pk=root.pk).update(is_superuser=True)
    root.refresh_from_db()
    return services.create_provider(
        actor=root, slug="corp", name="Corp", issuer=ISSUER, client_id="x", client_secret="hush",
        creates_accounts=True,
    )  # fmt: skip


@pytest.fixture
def kim(provider):
    """Kim, who has an identity and no password."""
    user, _ = provisioning.sign_in(Person(ISSUER, "1", {"preferred_username": "kim"}, {}), provider)
    assert not user.has_usable_password()
    return user


@pytest.fixture(autouse=True)
def _at_the_provider(monkeypatch):
    """Only the network is away: the provider answers at once, with whom `come_back` says."""
    monkeypatch.setattr(services, "discovered", lambda provider: KNOWN)


def come_back(client: Client, monkeypatch: Any, sub: str = "1", *, query: str = "", **claims: Any) -> Any:
    """Go to the provider and back with a browser; return (what we asked the provider for, our answer)."""
    start = client.get(f"/sso/corp/start/?{query}")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(start["Location"]).query).items()}
    monkeypatch.setattr(signing_in, "redeem", lambda *_, **__: Person(ISSUER, sub, claims, {}))
    return asked, client.get("/sso/corp/callback/", {"state": asked["state"], "code": "x"})


def signed_in(monkeypatch: Any) -> Client:
    client = Client()
    _, answer = come_back(client, monkeypatch)
    assert answer.status_code == 302, answer.content
    return client


def set_up(client: Client) -> str:
    """Set up an authenticator app on the page, and return its secret."""
    page = client.get("/account/security/authenticator/")
    assert page.status_code == 200, page["Location"]
    secret = re.search(r'name="secret" value="([A-Z2-7]{32})"', page.content.decode())[1]  # type: ignore[index]  # it is there
    form = {"secret": secret, "code": code_now(secret, steps=-1)}
    assert client.post("/account/security/authenticator/", form).status_code == 200
    return secret


def code_now(secret: str, *, steps: int = 0) -> str:
    return totp_code(secret, int(clock.now().timestamp()) // 30 + steps)


def confirm_at(client: Client, monkeypatch: Any, sub: str = "1", **claims: Any) -> Any:
    query = "confirm&next=/account/security/authenticator/"
    return come_back(client, monkeypatch, sub, query=query, **claims)


def test_required_factor_is_set_up_after_a_sign_in_and_asked_for_at_the_next(kim, monkeypatch):
    RoleGrant.objects.create(user=kim, team=docks.team("shop"), role=Role.objects.get(slug="viewer"))
    authority.change_security(
        actor=User.objects.get(username="root"), second_factor_for_admins=False, second_factor_for_roles=["viewer"],
        step_up_is_on=False,
    )  # fmt: skip
    client = signed_in(monkeypatch)
    assert client.get("/images/")["Location"] == "/account/security/"
    assert "Your role requires a second factor" in client.get("/account/security/").content.decode()
    secret = set_up(client)
    assert client.get("/images/").status_code == 200
    again = Client()
    assert come_back(again, monkeypatch)[1]["Location"] == "/account/second-factor/"
    assert again.get("/images/").status_code == 302
    assert again.post("/account/second-factor/", {"code": code_now(secret)}).status_code == 302
    assert again.get("/images/").status_code == 200


def test_old_proof_is_renewed_at_the_provider_also_before_the_factor(kim, monkeypatch):
    RoleGrant.objects.create(user=kim, team=docks.team("shop"), role=Role.objects.get(slug="viewer"))
    authority.change_security(
        actor=User.objects.get(username="root"), second_factor_for_admins=False, second_factor_for_roles=["viewer"],
        step_up_is_on=False,
    )  # fmt: skip
    client = signed_in(monkeypatch)
    with freeze_time(clock.now() + timedelta(minutes=6)):
        away = client.get("/account/security/authenticator/")
        assert away["Location"].startswith("/account/confirm/")
        page = client.get(away["Location"]).content.decode()
        assert 'href="/sso/corp/start/?confirm&amp;next=%2Faccount%2Fsecurity%2Fauthenticator%2F"' in page
        assert 'type="password"' not in page
        before = client.session.session_key
        asked, answer = confirm_at(client, monkeypatch)
        assert (asked["prompt"], asked["max_age"]) == ("login", "300")
        assert answer["Location"] == "/account/security/authenticator/"
        assert client.session.session_key != before
        set_up(client)
    assert AuditEvent.objects.get(action="session.confirmed").details["kind"] == "sso"


def test_sign_in_itself_does_not_make_the_provider_ask_again(kim, monkeypatch):
    asked, _ = come_back(Client(), monkeypatch)
    assert "prompt" not in asked
    assert "max_age" not in asked


@pytest.mark.parametrize(
    ("sub", "minutes", "why"),
    [("1", 4, ""), ("2", 0, "as somebody else"), ("1", 6, "did not ask you to sign in again")],
)
def test_only_a_fresh_proof_of_the_same_account_confirms(kim, monkeypatch, sub, minutes, why):
    client = signed_in(monkeypatch)
    with freeze_time(clock.now() + timedelta(minutes=30)):
        asked_at = int((clock.now() - timedelta(minutes=minutes)).timestamp())
        _, answer = confirm_at(client, monkeypatch, sub, auth_time=asked_at)
        assert answer.status_code == (403 if why else 302)
        assert why in answer.content.decode()
        page = client.get("/account/security/authenticator/")
        assert page.status_code == (302 if why else 200)
    assert AuditEvent.objects.filter(action="sign_in.refused").count() == bool(why)
    assert not User.objects.filter(username="user").exists()  # nobody new came in


def test_provider_is_no_proof_for_those_with_a_factor(kim, monkeypatch):
    client = signed_in(monkeypatch)
    secret = set_up(client)
    page = client.get("/account/confirm/").content.decode()
    assert "Confirm with Corp" not in page
    assert confirm_at(client, monkeypatch)[1].status_code == 302
    assert client.post("/account/security/authenticator/remove/")["Location"].startswith("/account/confirm/")
    assert TotpSecret.objects.exists()
    assert client.post("/account/confirm/", {"code": code_now(secret)}).status_code == 302
    assert client.post("/account/security/authenticator/remove/")["Location"] == "/account/security/"
    assert not TotpSecret.objects.exists()


def test_pages_say_how_the_person_signs_in(kim, monkeypatch):
    client = signed_in(monkeypatch)
    page = client.get("/account/security/").content.decode()
    assert "You sign in with a provider alone." in page
    assert "Change password" not in page
    assert 'href="/account/identities/"' in client.get("/account/").content.decode()
    assert client.get("/accounts/password/change/")["Location"] == "/account/security/"
    kim.set_password("a long enough one")
    kim.save()
    client.force_login(kim, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert client.get("/accounts/password/change/").status_code == 200
    assert "Change password" in client.get("/account/security/").content.decode()


def test_without_any_way_to_confirm_the_page_says_what_to_do(kim, provider, monkeypatch):
    client = signed_in(monkeypatch)
    services.change_provider("corp", actor=User.objects.get(username="root"), is_enabled=False)
    assert "Ask an admin for a link to set a password" in client.get("/account/confirm/").content.decode()


def test_second_identity_is_linked_after_a_fresh_proof(kim, monkeypatch):
    client = signed_in(monkeypatch)

    def linked() -> int:
        return Identity.objects.filter(user=kim, ended_at=None).count()

    with freeze_time(clock.now() + timedelta(minutes=6)):
        assert client.get("/sso/corp/start/?link")["Location"] == "/account/confirm/?next=%2Faccount%2Fidentities%2F"
        confirm_at(client, monkeypatch)
        _, page = come_back(client, monkeypatch, "2", query="link")
        form = {"proof": re.search(r'name="proof" value="([^"]+)"', page.content.decode())[1]}  # type: ignore[index]  # it is there
        assert linked() == 1
        assert client.post("/sso/corp/link/", form)["Location"] == "/account/identities/"
        assert linked() == 2
    with freeze_time(clock.now() + timedelta(minutes=30)):
        refused = client.post("/sso/corp/link/", form)
        assert (refused["Location"], linked()) == ("/account/identities/", 2)  # the proof is old


def test_break_glass_asks_for_another_proof(dock, provider, monkeypatch):
    role = Role.objects.create(slug="breaker", name="Breaker", verbs=["image.view", "promotion.breakglass"])
    RoleGrant.objects.create(user=dock.owner, team=dock.team, role=role)
    dock.owner.set_unusable_password()
    dock.owner.save()
    services.link_own(Person(ISSUER, "1", {}, {}), provider, actor=dock.owner)
    address = f"{reverse('lifecycle:promotion-break-glass')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    form = {"environment": dock.staging.pk, "reason": "payments fail", "incident": "INC-7"}
    client = signed_in(monkeypatch)
    with freeze_time(clock.now() + timedelta(minutes=6)):
        away = client.post(address, form)
        assert away["Location"].startswith("/account/confirm/?next=")
        assert not PromotionRequest.objects.exists()
        assert confirm_at(client, monkeypatch)[1].status_code == 302
        page = client.get(address).content.decode()
        assert 'value="INC-7"' in page  # what was typed came back
        assert "payments fail" in page
        assert 'type="password"' not in page
        assert client.post(address, form)["Location"] == reverse(
            "lifecycle:promotion", args=[PromotionRequest.objects.get().pk]
        )


def test_token_of_a_person_without_a_password_cannot_break_glass(dock, provider):
    role = Role.objects.create(slug="breaker", name="Breaker", verbs=["image.view", "promotion.breakglass"])
    RoleGrant.objects.create(user=dock.owner, team=dock.team, role=role)
    dock.owner.set_unusable_password()
    dock.owner.save()
    body = {
        "repository": dock.repository.name, "digest": dock.image.digest, "environment": dock.staging.slug,
        "reason": "x", "incident": "x", "password": "guess",
    }  # fmt: skip
    refused = Caller(dock.owner).post("promotions/break-glass/", body)
    assert (refused.status_code, refused.json()["code"]) == (403, "confirmation_required")
    assert "Do it in the browser" in refused.json()["detail"]
    dock.owner.set_password("dock-side-pass")
    dock.owner.save()
    assert Caller(dock.owner).post("promotions/break-glass/", body | {"password": "dock-side-pass"}).status_code == 202


def test_linking_asks_for_the_second_factor_ends_other_sessions_and_is_told(kim, monkeypatch):
    client, other = signed_in(monkeypatch), signed_in(monkeypatch)
    _, page = come_back(client, monkeypatch, "2", query="link")
    form = {"proof": re.search(r'name="proof" value="([^"]+)"', page.content.decode())[1]}  # type: ignore[index]  # it is there
    TotpSecret.objects.create(user=kim)
    assert client.get("/sso/corp/start/?link")["Location"].startswith("/account/confirm/")
    assert client.post("/sso/corp/link/", form)["Location"].startswith("/account/confirm/")
    assert Identity.objects.filter(user=kim).count() == 1
    TotpSecret.objects.all().delete()
    assert other.get("/account/identities/").status_code == 200
    assert client.post("/sso/corp/link/", form)["Location"] == "/account/identities/"
    assert client.get("/account/identities/").status_code == 200
    assert other.get("/account/identities/").status_code == 302
    told = InboxItem.objects.filter(person=kim, notice__text__contains="You can now also sign in with corp")
    assert told.count() == 1


def test_session_of_a_provider_ends_after_its_own_time(kim, monkeypatch, settings):
    start = clock.now()
    client, by_password = signed_in(monkeypatch), Client()
    lee = User.objects.create_user("lee", password="a long enough one")
    assert by_password.post("/accounts/sign-in/", {"login": "lee", "password": "a long enough one"}).status_code == 302
    lives = {BrowserSession.objects.get(user=user).provider_at is not None for user in (kim, lee)}
    assert lives == {True, False}
    for hours in range(1, 12):  # in use all the time
        with freeze_time(start + timedelta(hours=hours)):
            assert client.get("/account/security/").status_code == 200
            assert by_password.get("/account/security/").status_code == 200
    with freeze_time(start + timedelta(hours=12, minutes=1)):
        assert client.get("/account/security/").status_code == 302
        assert by_password.get("/account/security/").status_code == 200
        assert not sessions_of(kim).exists()


def test_new_key_of_a_session_does_not_make_it_longer(kim, monkeypatch):
    start = clock.now()
    client = signed_in(monkeypatch)
    with freeze_time(start + timedelta(minutes=2)):
        set_up(client)  # the session gets another key
    with freeze_time(start + timedelta(hours=12, minutes=1)):
        assert client.get("/account/security/").status_code == 302


def test_proof_at_the_provider_renews_the_session_and_reads_the_claims(kim, provider, monkeypatch):
    root = User.objects.get(username="root")
    docks.team("shop")
    services.create_rule("corp", services.NewRule("groups", "dev", role="viewer", team="shop"), actor=root)
    client = Client()
    come_back(client, monkeypatch, groups=["dev"])
    assert RoleGrant.objects.filter(user=kim).exists()
    later = clock.now() + timedelta(hours=11)
    with freeze_time(later):
        _, answer = confirm_at(client, monkeypatch, groups=[])
        assert answer.status_code == 302
    assert not RoleGrant.objects.filter(user=kim).exists()
    with freeze_time(later + timedelta(hours=2)):
        assert client.get("/account/security/").status_code == 200
