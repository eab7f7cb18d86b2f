"""Accounts that admins make, their first secrets, profiles, and which votes count as one person's."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from accounts import tokens
from accounts.models import AccountLink, IdentityReset, Team, User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.promotion import queries
from lifecycle.promotion import services as promotions

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
GOOD = "a long passphrase of lee"


@pytest.fixture
def admin():
    return User.objects.create(username="ada", is_superuser=True)


def browser(user: User | None = None) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user, backend=BACKEND)
    return client


def events(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action).order_by("pk"))


def path_of(link: str) -> str:
    return link[link.index("/account/link/") :]


def set_password(client: Client, link: str, password: str = GOOD):
    return client.post(path_of(link), {"new_password1": password, "new_password2": password})


def sign_in(username: str, password: str) -> Client:
    client = Client()
    client.post("/accounts/sign-in/", {"login": username, "password": password})
    return client


def test_account_of_an_admin_gets_an_invitation_that_works_once(admin):
    page = browser(admin).post("/people/", {"username": "lee", "full_name": "Lee", "email": "lee@example.com"})
    link = re.search(r"https?://[^\s\"<]+/account/link/[^\s\"<]+", page.content.decode())[0]
    lee = User.objects.get(username="lee")
    assert not lee.has_usable_password()
    assert "no-store" in page["Cache-Control"]
    assert path_of(link).split("/")[3] not in str(list(AuditEvent.objects.values_list("canonical", flat=True)))
    assert browser().get(path_of(link)).status_code == 200
    assert set_password(browser(), link, "short").status_code == 422
    assert set_password(browser(), link)["Location"] == "/accounts/sign-in/"
    assert sign_in("lee", GOOD).get("/images/").status_code == 200
    assert set_password(browser(), link, GOOD + "2").status_code == 404
    assert events("user.created")[0].details == {"user": "lee", "is_admin": False, "secret_kind": "link"}
    assert events("user.link_used")[0].details == {
        "user": "lee", "kind": "invitation", "made_by": "ada", "same_address": True,
    }  # fmt: skip


def test_link_is_refused_in_the_browser_of_its_maker(admin):
    _lee, link = services.create_person(actor=admin, username="lee")
    maker = browser(admin)
    assert "You are signed in as ada" in maker.get(path_of(link)).content.decode()
    assert set_password(maker, link).status_code == 422
    assert not User.objects.get(username="lee").has_usable_password()
    assert set_password(browser(), link).status_code == 302


def test_link_ends_with_time_a_newer_link_and_its_maker(admin):
    lee, first = services.create_person(actor=admin, username="lee")
    _lee, second = services.reset_password(lee.pk, actor=admin)
    assert browser().get(path_of(first)).status_code == 404
    assert browser().get(path_of(second)).status_code == 200
    User.objects.filter(pk=admin.pk).update(is_active=False)
    assert browser().get(path_of(second)).status_code == 404
    User.objects.filter(pk=admin.pk).update(is_active=True)
    AccountLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert browser().get(path_of(second)).status_code == 404
    with pytest.raises(NotFound):
        services.use_link("wrong", password=GOOD)


def test_generated_password_must_be_changed_before_anything_else(admin):
    lee, password = services.create_person(actor=admin, username="lee", with_password=True)
    text = tokens.create_token(lee, kind="pat", name="t")[1]
    client = sign_in("lee", password)
    assert client.get("/images/")["Location"] == "/accounts/password/change/"
    refused = client.get("/api/v1/images/")
    assert (refused.status_code, refused.json()["code"]) == (403, "password_change_required")
    script = Client(headers={"Authorization": f"Bearer {text}"})
    assert script.get("/api/v1/images/").status_code == 401
    form = {"oldpassword": password, "password1": password, "password2": password}
    assert "differs from the current one" in client.post("/accounts/password/change/", form).content.decode()
    assert User.objects.get(pk=lee.pk).must_change_password
    client.post("/accounts/password/change/", {**form, "password1": GOOD, "password2": GOOD, "keeps_tokens": "on"})
    lee.refresh_from_db()
    assert (lee.must_change_password, lee.secret_seen_by) == (False, None)
    assert client.get("/images/").status_code == 200
    assert script.get("/api/v1/images/").status_code == 200


def test_accounts_and_tokens_of_commands_are_exempt_and_the_event_says_so(capsys):
    call_command("create_user", "lee")
    password = capsys.readouterr().out.strip()
    assert sign_in("lee", password).get("/images/").status_code == 200
    call_command("create_token", "lee")
    assert "exempt" in events("user.created")[0].details["secret_kind"]
    assert "exempt" in events("token.created")[0].details["seen_by"]
    own = services.create_api_token(User.objects.get(username="lee"), actor=User.objects.get(username="lee"), name="t")
    assert events("token.created")[-1].details["seen_by"] == ""
    assert tokens.find_token(own) is not None


def test_reset_ends_the_old_password_and_its_sessions(admin):
    lee = User.objects.create(username="lee")
    lee.set_password(GOOD)
    lee.save()
    open_session = sign_in("lee", GOOD)
    with pytest.raises(NotPermitted):
        services.reset_password(admin.pk, actor=lee)
    with pytest.raises(Conflict, match="your own"):
        services.reset_password(admin.pk, actor=admin)
    page = browser(admin).post(f"/people/{lee.pk}/reset-password/")
    assert "/account/link/" in page.content.decode()
    assert open_session.get("/images/").status_code == 302
    assert sign_in("lee", GOOD).get("/images/").status_code == 302
    assert events("user.password_reset")[0].details == {"user": "lee", "secret_kind": "link", "tokens_ended": 0}


def test_admin_is_made_and_unmade_but_never_the_last(admin):
    lee = User.objects.create(username="lee")
    with pytest.raises(NotPermitted):
        services.set_admin(lee.pk, actor=lee, is_admin=True)
    with pytest.raises(Conflict, match="last admin"):
        services.set_admin(admin.pk, actor=admin, is_admin=False)
    assert browser(admin).post(f"/people/{lee.pk}/admin/", {"is_admin": "1"}).status_code == 302
    assert browser(lee).get("/people/").status_code == 200
    services.set_admin(admin.pk, actor=User.objects.get(pk=lee.pk), is_admin=False)
    assert browser(User.objects.get(pk=admin.pk)).get("/people/").status_code == 403
    assert [len(events(f"user.admin_{word}")) for word in ("granted", "revoked")] == [1, 1]


def test_profile_changes_name_mail_and_time_zone_of_all_times(dock, request_):
    client = browser(dock.approver)
    form = {"full_name": "Ana", "email": "ana@example.com", "time_zone": "Asia/Tokyo"}
    assert client.post("/account/", {**form, "time_zone": "Mars/Base"}).status_code == 422
    assert client.post("/account/", form).status_code == 302
    assert "Asia/Tokyo" in client.get("/account/").content.decode()
    assert events("user.profile_changed")[0].details["after"] == {
        "name": "Ana", "mail": "ana@example.com", "time_zone": "Asia/Tokyo",
    }  # fmt: skip
    page = f"/promotions/{request_.pk}/"
    assert "JST" in client.get(page).content.decode()
    assert "JST" not in browser(dock.second).get(page).content.decode()
    User.objects.filter(pk=dock.approver.pk).update(email_verified_at=timezone.now())
    services.change_profile(actor=dock.approver, full_name="", email="b@example.com", time_zone="UTC")
    assert User.objects.get(pk=dock.approver.pk).email_verified_at is None
    with pytest.raises(Malformed):
        services.change_profile(actor=dock.approver, full_name="", email="no mail", time_zone="UTC")


def test_own_grants_and_actions_are_shown_to_oneself_only(admin):
    kim, team = User.objects.create(username="kim"), Team.objects.create(slug="shop", name="Shop")
    services.add_member(team.pk, actor=admin, username="kim", role="viewer", repository_pattern="shop/*")
    services.create_api_token(kim, actor=kim, name="laptop")
    page = browser(kim).get("/account/access/").content.decode()
    assert all(text in page for text in ("shop/*", "viewer", "by ada", "token.created"))
    other = browser(admin).get("/account/access/").content.decode()
    assert "token.created" not in other
    assert "gdk_pat_" in browser(admin).get(f"/people/{kim.pk}/").content.decode()
    assert "gdk_pat_" not in browser(kim).get(f"/people/{kim.pk}/").content.decode()


def test_page_of_a_person_shows_only_teams_that_the_reader_sees(dock, admin):
    other = services.create_team(actor=system_user(), slug="other", name="Other")
    services.add_member(other.pk, actor=system_user(), username="approver", role="viewer")
    page = f"/people/{dock.approver.pk}/"
    assert browser(dock.outsider).get(page).status_code == 404
    seen = browser(dock.second).get(page).content.decode()
    assert ("/teams/shop/" in seen, "/teams/other/" in seen, "Reset password" in seen) == (True, False, False)
    seen = browser(admin).get(page).content.decode()
    assert ("/teams/other/" in seen, "Reset password" in seen) == (True, True)


def approvals(request_) -> tuple[str, str]:
    promotions.reevaluate(request_)
    entry = next(row for row in queries.requirements_now(request_) if row["name"] == "approvals")
    return entry["status"], entry["summary"]


def test_vote_of_an_account_whose_password_its_maker_saw_does_not_count(dock, request_, admin):
    promotions.approve(request_.pk, actor=dock.approver)
    assert approvals(request_)[0] == "satisfied"
    services.reset_password(dock.approver.pk, actor=admin, with_password=True)
    dock.approver.refresh_from_db()
    dock.second.secret_seen_by = admin
    dock.second.save()
    request_.refresh_from_db()
    status, summary = approvals(request_)
    assert status != "satisfied"
    assert "approval of approver does not count: ada has seen the password of approver" in summary
    with pytest.raises(NotPermitted, match="would not count: ada has seen the password"):
        promotions.approve(request_.pk, actor=dock.second)
    assert not queries.decidable_by(dock.second).exists()
    services.note_password_changed(dock.approver)
    request_.refresh_from_db()
    assert "Identity reset by ada" in approvals(request_)[1]  # ada knew the password, and could have changed it
    IdentityReset.objects.update(at=timezone.now() - timedelta(hours=25))
    request_.refresh_from_db()
    assert approvals(request_)[0] == "satisfied"


def test_vote_of_an_account_with_the_mail_of_the_requester_does_not_count(dock, request_, admin):
    for user, mail in ((dock.requester, "One@example.com"), (dock.approver, "one@Example.com")):
        services.change_profile(actor=user, full_name="", email=mail, time_zone="UTC")
    services.verify_mail(dock.requester.pk, actor=admin)
    dock.approver.refresh_from_db()
    assert queries.decidable_by(dock.approver).exists()  # its own mail is not confirmed
    services.verify_mail(dock.approver.pk, actor=admin)
    dock.approver.refresh_from_db()
    with pytest.raises(NotPermitted, match="share a verified mail"):
        promotions.approve(request_.pk, actor=dock.approver)
    assert not queries.decidable_by(dock.approver).exists()
    assert promotions.approve(request_.pk, actor=dock.second).state == "ready"


def test_two_approvers_with_one_mail_count_once(dock, request_):
    dock.staging.required_approvals = 2
    dock.staging.save()
    promotions.approve(request_.pk, actor=dock.approver)
    promotions.approve(request_.pk, actor=dock.second)
    request_.refresh_from_db()
    assert approvals(request_)[0] == "satisfied"
    User.objects.filter(pk__in=(dock.approver.pk, dock.second.pk)).update(
        email="one@example.com", email_verified_at=timezone.now()
    )
    request_.refresh_from_db()
    status, summary = approvals(request_)
    assert (status, "share a verified mail" in summary) == ("pending", True)


@pytest.mark.parametrize(("maker", "status"), [("ada", 403), ("gravingdock", 200), ("approver", 200)])
def test_vote_with_a_token_that_another_user_saw_does_not_count(dock, request_, admin, maker, status):
    made_by = User.objects.get(username=maker)
    text = tokens.create_token(dock.approver, kind="pat", name="t", made_by=made_by)[1]
    script = Client(headers={"Authorization": f"Bearer {text}"})
    answer = script.post(f"/api/v1/promotions/{request_.pk}/approve/", {}, "application/json")
    assert answer.status_code == status
    if status == 403:
        assert "ada created this token" in answer.json()["detail"]
