"""An account that changes its mail stays the same person: separation of duties survives an edit (R21)."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Identity, User
from lifecycle.admission.models import AdmissionDebt
from lifecycle.admission.services import why_not_review
from lifecycle.authority import services
from lifecycle.authority.identity import one_account_each, same_person, why_not_counted
from lifecycle.clusters.models import Cluster
from lifecycle.core.errors import NotPermitted
from lifecycle.oidc.types import Person
from lifecycle.promotion import services as promotions
from lifecycle.promotion.exclusions import excluded_from
from lifecycle.promotion.queries import decidable_by
from lifecycle.registry.models import Image
from lifecycle.sso import provisioning
from lifecycle.sso import services as sso
from lifecycle.sso.queries import identities_of

pytestmark = pytest.mark.django_db
ISSUER = "https://login.example.com"


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create(username="ada", is_superuser=True)


def give_mail(user: User, mail: str, *, by: User | None = None) -> None:
    services.change_profile(actor=user, full_name="", email=mail, time_zone="UTC")
    if by is not None:
        services.verify_mail(user.pk, actor=by)
    user.refresh_from_db()


@pytest.mark.parametrize("new", ["other@example.com", ""])
def test_second_account_does_not_approve_after_its_mail_was_edited(
    dock: Any, request_: Any, admin: User, new: str
) -> None:
    for user in (dock.requester, dock.approver):
        give_mail(user, "One@example.com", by=admin)
    give_mail(dock.approver, new)
    give_mail(dock.requester, "another@example.com")
    assert "share a verified mail" in why_not_counted(dock.approver, [dock.requester.pk])
    with pytest.raises(NotPermitted, match="share a verified mail"):
        promotions.approve(request_.pk, actor=dock.approver)
    assert not decidable_by(dock.approver).exists()
    assert one_account_each([dock.approver, dock.requester])[dock.requester.pk] == dock.approver
    assert promotions.approve(request_.pk, actor=dock.second).state == "ready"
    assert not identities_of(dock.approver).exists()  # it is no way to sign in


def test_mail_that_nobody_confirmed_is_not_kept(dock: Any, admin: User) -> None:
    give_mail(dock.approver, "one@example.com")
    give_mail(dock.approver, "two@example.com")
    assert not Identity.objects.exists()
    give_mail(dock.approver, "two@example.com", by=admin)
    give_mail(dock.approver, "TWO@example.com")  # the same
    assert not Identity.objects.exists()


def test_mail_that_changed_at_the_provider_is_kept(dock: Any, admin: User) -> None:
    provider = sso.create_provider(
        actor=admin, slug="corp", name="Corp", issuer=ISSUER, client_id="x", client_secret="hush hush",
        creates_accounts=True,
    )  # fmt: skip
    claims = {"preferred_username": "kim", "email_verified": True}
    kim, _ = provisioning.sign_in(Person(ISSUER, "1", {**claims, "email": "one@example.com"}, {}), provider)
    provisioning.sign_in(Person(ISSUER, "1", {**claims, "email": "two@example.com"}, {}), provider)
    User.objects.filter(pk=kim.pk).update(email="two@example.com")
    give_mail(dock.approver, "one@example.com", by=admin)
    assert dock.approver in same_person(kim)


def test_committer_is_excluded_by_a_mail_of_before(dock: Any, request_: Any, admin: User) -> None:
    Image.objects.filter(pk=dock.image.pk).update(labels={"git.commit.author.email": "Dev@example.com"})
    give_mail(dock.approver, "dev@example.com", by=admin)
    give_mail(dock.approver, "new@example.com")
    request_.image.refresh_from_db()
    assert "committer" in excluded_from(request_)[dock.approver.pk]


def test_other_account_of_who_broke_the_glass_does_not_review_it(dock: Any, admin: User) -> None:
    cluster = Cluster.objects.create(slug="north", team=dock.team, created_by=admin)
    debt = AdmissionDebt(cluster=cluster, user_name="oidc:one@example.com", user_names=[])
    assert "broke the glass yourself" not in str(why_not_review(dock.approver, debt))
    for user in (dock.requester, dock.approver):
        give_mail(user, "one@example.com", by=admin)
    give_mail(dock.approver, "")
    assert "broke the glass yourself" in str(why_not_review(dock.approver, debt))
