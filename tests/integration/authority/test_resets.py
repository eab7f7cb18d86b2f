"""An admin who reset how a person signs in could act as that person (ASVS 6.5.1, security.md R21)."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from freezegun import freeze_time

from accounts import tokens
from accounts.models import ApiToken, IdentityReset, Role, User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant, TotpSecret
from lifecycle.authority.resets import COOL_DOWN, ONE_PERSON_FOR
from lifecycle.authority.second_factors import new_totp_secret, totp_code, use_code
from lifecycle.authority.services.security import why_no_fresh_factor
from lifecycle.core import clock, sealing
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import NotPermitted
from lifecycle.notices.models import Notice
from lifecycle.promotion import services as promotions
from lifecycle.promotion.breakglass import why_not_break_glass
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import decidable_by, facts_of
from tests.factories.shop import make_request

pytestmark = pytest.mark.django_db
GOOD = "a long passphrase of lee"


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create(username="ada", is_superuser=True)


def give_app(user: User, *, age: timedelta = timedelta(0)) -> str:
    secret = new_totp_secret()
    row = TotpSecret.objects.create(user=user)
    row.secret_sealed = sealing.seal(secret, row, "secret_sealed")
    row.save()
    TotpSecret.objects.filter(pk=row.pk).update(created_at=clock.now() - age)
    return secret


def reset_password(person: User, admin: User) -> None:
    """Reset the password with a link, and use the link: as the admin could too."""
    _, link = services.reset_password(person.pk, actor=admin)
    services.use_link(link.rstrip("/").rsplit("/", 1)[-1], password=GOOD)
    person.refresh_from_db()


def reset_with_password(person: User, admin: User) -> None:
    services.reset_password(person.pk, actor=admin, with_password=True)
    person.refresh_from_db()
    services.note_password_changed(person)


def reset_factors(person: User, admin: User) -> None:
    give_app(person)
    services.reset_factors(person.pk, actor=admin)


def reactivate(person: User, admin: User) -> None:
    services.deactivate(person.pk, actor=admin)
    services.reactivate(person.pk, actor=admin)
    person.refresh_from_db()


WAYS = {"link": reset_password, "password": reset_with_password, "factors": reset_factors, "reactivated": reactivate}


def later(time_left: timedelta) -> Any:
    return freeze_time(clock.now() + time_left, ignore=["asyncio"])


@pytest.mark.parametrize("way", WAYS)
def test_whom_an_admin_reset_decides_nothing_for_a_day(dock: Any, request_: Any, admin: User, way: str) -> None:
    assert decidable_by(dock.approver).exists()
    WAYS[way](dock.approver, admin)
    give_app(dock.approver)  # whoever signed in first set up a factor
    with pytest.raises(NotPermitted, match="Identity reset by ada"):
        promotions.approve(request_.pk, actor=dock.approver)
    assert not decidable_by(dock.approver).exists()
    with request_context(RequestContext(strong_at=time.time())):  # the new factor proves nothing yet
        assert "Identity reset by ada" in str(why_no_fresh_factor(dock.approver, "Approving into production"))
    assert "Identity reset by ada" in str(why_not_break_glass(dock.approver, dock.repository, dock.staging))
    assert promotions.approve(request_.pk, actor=dock.second).state == "ready"  # nobody else is kept


def test_vote_of_before_a_reset_counts_again_after_it(dock: Any, request_: Any, admin: User) -> None:
    for user in (dock.second, dock.owner):  # nobody else can approve
        RoleGrant.objects.filter(user=user).delete()
    promotions.approve(request_.pk, actor=dock.approver)
    reset_password(dock.approver, admin)
    request_.refresh_from_db()
    facts = facts_of(request_)
    assert facts.approvers == []
    assert any("Identity reset by ada" in words for words in facts.uncounted)
    assert facts.eligible == ["approver"]  # so that the request is not refused as impossible
    promotions.reevaluate(request_)
    request_.refresh_from_db()
    assert request_.state == "open"
    with later(COOL_DOWN + timedelta(minutes=1)):
        assert facts_of(PromotionRequest.objects.get(pk=request_.pk)).approvers == ["approver"]


def test_admin_and_whom_they_reset_are_one_person_for_a_month(dock: Any, admin: User) -> None:
    dock.requester = admin
    RoleGrant.objects.create(user=admin, team=dock.team, role=Role.objects.get(slug="owner"))
    request = make_request(dock)
    reset_password(dock.approver, admin)
    with later(COOL_DOWN + timedelta(hours=1)):
        with pytest.raises(NotPermitted, match="count as one person: one reset how the other signs in"):
            promotions.approve(request.pk, actor=dock.approver)
        assert not decidable_by(dock.approver).filter(pk=request.pk).exists()
        assert decidable_by(dock.second).filter(pk=request.pk).exists()
    with later(ONE_PERSON_FOR + timedelta(hours=1)):
        assert promotions.approve(request.pk, actor=dock.approver).state == "ready"


def test_votes_of_an_admin_and_whom_they_reset_are_one(dock: Any, request_: Any, admin: User) -> None:
    role = RoleGrant.objects.get(user=dock.approver).role
    for user in (admin, other := User.objects.create(username="bea", is_superuser=True)):
        RoleGrant.objects.create(user=user, team=dock.team, role=role)
    dock.staging.required_approvals = 3
    dock.staging.save()
    reset_password(dock.approver, admin)
    reset_password(dock.approver, other)  # approver is one of both, but they are two
    with later(COOL_DOWN + timedelta(hours=1)):
        for voter in (admin, dock.approver, other):
            promotions.approve(request_.pk, actor=voter)
        facts = facts_of(PromotionRequest.objects.get(pk=request_.pk))
    assert facts.approvers == ["ada", "bea"]


def test_reset_of_an_admin_spreads_to_whom_that_admin_resets(dock: Any, admin: User) -> None:
    bea = User.objects.create(username="bea", is_superuser=True)
    reset_password(bea, admin)
    for act in (
        lambda: services.reset_password(dock.approver.pk, actor=bea),
        lambda: services.reset_factors(dock.approver.pk, actor=bea),
        lambda: services.set_admin(dock.approver.pk, actor=bea, is_admin=True),
    ):
        give_app(dock.approver) if not hasattr(dock.approver, "totp") else None
        with pytest.raises(NotPermitted, match="Identity reset by ada"):
            act()
    with later(COOL_DOWN + timedelta(hours=1)):
        reset_password(dock.approver, bea)
    made = set(IdentityReset.objects.filter(user=dock.approver).values_list("made_by__username", flat=True))
    assert made == {"ada", "bea"}


def test_older_second_factor_settles_a_reset_of_the_password(dock: Any, request_: Any, admin: User) -> None:
    secret = give_app(dock.approver, age=timedelta(days=1))
    reset_password(dock.approver, admin)
    code = totp_code(secret, int(clock.now().timestamp()) // 30)
    assert use_code(dock.approver, code) == "totp"
    assert promotions.approve(request_.pk, actor=dock.approver).state == "ready"


def test_newer_second_factor_settles_nothing(dock: Any, request_: Any, admin: User) -> None:
    reset_password(dock.approver, admin)
    secret = give_app(dock.approver)
    code = totp_code(secret, int(clock.now().timestamp()) // 30)
    assert use_code(dock.approver, code) == "totp"
    with pytest.raises(NotPermitted, match="Identity reset by ada"):
        promotions.approve(request_.pk, actor=dock.approver)


def test_resets_by_commands_are_exempt(dock: Any, request_: Any) -> None:
    services.reset_password(dock.approver.pk, actor=system_user())
    dock.approver.refresh_from_db()
    assert not IdentityReset.objects.exists()
    assert promotions.approve(request_.pk, actor=dock.approver).state == "ready"


def test_person_and_all_other_admins_are_told(dock: Any, admin: User) -> None:
    User.objects.create(username="bea", is_superuser=True)
    services.reset_password(dock.approver.pk, actor=admin)
    told = {notice.person.username: notice for notice in Notice.objects.filter(person__isnull=False)}
    assert set(told) == {"approver", "bea"}
    assert "An admin reset your password" in told["approver"].text
    assert "ada reset the password of approver, and could sign in as approver" in told["bea"].text
    page = Client()
    page.force_login(User.objects.get(username="bea"), backend="allauth.account.auth_backends.AuthenticationBackend")
    assert "Identity reset by ada" in page.get(f"/people/{dock.approver.pk}/").content.decode()


@pytest.mark.parametrize("way", WAYS)
def test_reset_ends_tokens_and_says_how_many(dock: Any, admin: User, way: str) -> None:
    parent, text = tokens.create_token(dock.approver, kind="pat", name="laptop")
    services.create_registry_sign_in(parent, client="docker")
    _, others = tokens.create_token(dock.second, kind="pat", name="laptop")
    WAYS[way](dock.approver, admin)
    assert tokens.find_token(text) is None
    assert not ApiToken.objects.filter(user=dock.approver, revoked_at=None).exists()
    assert tokens.find_token(others) is not None
    actions = ("user.password_reset", "second_factor.reset", "user.reactivated")
    event = AuditEvent.objects.get(action__in=actions)
    assert event.details["tokens_ended"] == (0 if way == "reactivated" else 2)  # deactivation ended them


@pytest.mark.parametrize("keeps", [False, True], ids=["end", "keep"])
def test_new_password_ends_tokens_unless_their_owner_keeps_them(keeps: bool) -> None:
    kim = User.objects.create_user("kim", password=GOOD)
    _, text = tokens.create_token(kim, kind="pat", name="laptop")
    client = Client()
    client.post("/accounts/sign-in/", {"login": "kim", "password": GOOD})
    assert "keeps_tokens" in client.get("/accounts/password/change/").content.decode()
    form = {"oldpassword": GOOD, "password1": GOOD + "2", "password2": GOOD + "2"}
    answer = client.post("/accounts/password/change/", form | ({"keeps_tokens": "on"} if keeps else {}))
    assert answer.status_code == 302
    assert (tokens.find_token(text) is not None) is keeps
    details = AuditEvent.objects.get(action="user.password_changed").details
    assert details == {"user": "kim", "tokens_ended": 0 if keeps else 1}
    assert client.get("/account/security/").status_code == 200  # this session goes on
