"""Who comes in, as which account, with which groups and roles: from proven claims to rows, and back."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import resolve

from accounts.models import Group, GroupMember, Identity, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.authority.identity import why_not_counted
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.rights import may
from lifecycle.core import clock, sealing
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.oidc.types import Person
from lifecycle.sso import provisioning, services
from lifecycle.sso.queries import callback_of, identities_of, secret_of, takes_password
from lifecycle.sso.services import NewRule
from tests.factories import dock
from tests.factories.people import person

pytestmark = pytest.mark.django_db
ISSUER = "https://login.example.com"


@pytest.fixture
def root():
    user = person("root")
    user.is_superuser = True
    user.save()
    return user


@pytest.fixture
def team():
    return dock.team("shop")


@pytest.fixture
def provider(root, team):
    authority.create_group(actor=root, slug="developers", source=Group.Source.SSO)
    made = services.create_provider(
        actor=root, slug="corp", name="Corp", issuer=ISSUER, client_id="x", client_secret="hush hush",
        creates_accounts=True,
    )  # fmt: skip
    services.create_rule("corp", NewRule(claim="groups", value="dev", group="developers"), actor=root)
    services.create_rule("corp", NewRule("groups", "ops-*", "glob", role="viewer", team="shop"), actor=root)
    return made


def proven(sub: str = "1", issuer: str = ISSUER, **claims: Any) -> Person:
    return Person(issuer, sub, {"groups": [], "preferred_username": "kim", **claims}, {})


def groups_of(user):
    return sorted(GroupMember.objects.filter(user=user).values_list("group__slug", flat=True))


def roles_of(user):
    return sorted(RoleGrant.objects.filter(user=user).values_list("role__slug", flat=True))


def test_identity_is_issuer_and_subject_and_nothing_else(provider, root):
    other = services.create_provider(
        actor=root, slug="other", name="Other", issuer="https://other.example.com", client_id="x", client_secret="x",
        creates_accounts=True,
    )  # fmt: skip
    kim, _ = provisioning.sign_in(proven(), provider)
    again, _ = provisioning.sign_in(proven(preferred_username="renamed", email="new@example.com"), provider)
    assert again == kim
    second, _ = provisioning.sign_in(proven("2"), provider)  # the same name at the provider
    third, _ = provisioning.sign_in(proven(issuer="https://other.example.com"), other)  # the same subject elsewhere
    assert [user.username for user in (kim, second, third)] == ["kim", "kim-2", "kim-3"]
    assert not kim.has_usable_password()
    assert not kim.is_superuser


@pytest.mark.parametrize(
    ("name", "wanted"), [("Kim.Lee@corp", "kim-lee"), ("root", "root-2"), ("", "user"), ("++", "user"), (7, "user"),
                         ("gravingdock", "gravingdock-2"), ("shop+ci", "shop-ci"), ("É" * 99, "user")]
)  # fmt: skip
def test_b5_wanted_name_never_finds_an_account(provider, name, wanted):
    user, _ = provisioning.sign_in(proven(preferred_username=name), provider)
    assert user.username == wanted


def test_groups_and_roles_follow_the_claims(provider, team):
    kim, problem = provisioning.sign_in(proven(groups=["dev", "ops-1", "ops-2", "other"]), provider)
    assert (problem, groups_of(kim), roles_of(kim)) == ("", ["developers"], ["viewer"])
    assert may(kim, Verb.IMAGE_VIEW, team=team)
    provisioning.sign_in(proven(groups=["dev"]), provider)
    assert (groups_of(kim), roles_of(kim)) == (["developers"], [])
    assert not may(kim, Verb.IMAGE_VIEW, team=team)
    provisioning.sign_in(proven(groups=[]), provider)
    assert (groups_of(kim), roles_of(kim)) == ([], [])
    written = AuditEvent.objects.filter(actor=system_user(), action__in=["group.member_added", "group.member_removed"])
    assert [event.details["source"] for event in written] == ["corp", "corp"]


@pytest.mark.parametrize("claims", [{"groups": None}, {"groups": 7}, {"groups": {"dev": True}}, {"groups": [""]}])
def test_b5_missing_claim_takes_everything_and_refuses(provider, claims):
    kim, _ = provisioning.sign_in(proven(groups=["dev", "ops-1"]), provider)
    again, problem = provisioning.sign_in(proven(**claims), provider)
    assert again == kim
    assert "groups" in problem
    assert (groups_of(kim), roles_of(kim)) == ([], [])


def test_what_people_gave_stays(provider, team, root):
    kim, _ = provisioning.sign_in(proven(groups=["ops-1"]), provider)
    authority.add_member(team.pk, actor=root, username="kim", role="creator")
    authority.create_group(actor=root, slug="byhand")
    authority.add_to_group(Group.objects.get(slug="byhand").pk, actor=root, username="kim")
    provisioning.sign_in(proven(groups=[]), provider)
    assert (groups_of(kim), roles_of(kim)) == (["byhand"], ["creator"])
    authority.add_member(team.pk, actor=root, username="kim", role="viewer")
    provisioning.sign_in(proven(groups=["ops-1"]), provider)
    provisioning.sign_in(proven(groups=[]), provider)
    assert roles_of(kim) == ["creator", "viewer"]  # granted by hand before the claim gave it


def test_role_by_claims_never_keeps_a_team(provider, team, root):
    services.create_rule("corp", NewRule("groups", "boss", role="owner", team="shop"), actor=root)
    kim, _ = provisioning.sign_in(proven(groups=["boss"]), provider)
    assert roles_of(kim) == ["owner"]
    provisioning.sign_in(proven(groups=[]), provider)  # cannot be refused
    assert roles_of(kim) == []


def test_verified_mail_asks_to_link_and_links_only_by_the_setting(provider, root):
    old = User.objects.create(username="old", email="Kim@Example.com")
    mail = {"email": "kim@example.com", "email_verified": True}
    with pytest.raises(NotPermitted, match="link this provider"):
        provisioning.sign_in(proven(**mail), provider)
    services.change_provider("corp", actor=root, links_by_mail=True)
    provider.refresh_from_db()
    with pytest.raises(NotPermitted, match="link this provider"):  # not confirmed here
        provisioning.sign_in(proven(**mail), provider)
    User.objects.filter(pk=old.pk).update(email_verified_at=clock.now(), is_superuser=True)
    with pytest.raises(NotPermitted, match="link this provider"):  # an admin's
        provisioning.sign_in(proven(**mail), provider)
    User.objects.filter(pk=old.pk).update(is_superuser=False)
    other = User.objects.create(username="twin", email="kim@example.com")
    with pytest.raises(NotPermitted, match="link this provider"):  # two accounts
        provisioning.sign_in(proven(**mail), provider)
    other.delete()
    with pytest.raises(AssertionError):  # unverified at the provider: another account
        assert provisioning.sign_in(proven("9", email="kim@example.com"), provider)[0] == old
    assert provisioning.sign_in(proven(**mail), provider)[0] == old


def test_deactivated_account_and_closed_provider_let_nobody_in(provider, root):
    kim, _ = provisioning.sign_in(proven(groups=["dev"]), provider)
    authority.deactivate(kim.pk, actor=root)
    with pytest.raises(NotPermitted, match="deactivated"):
        provisioning.sign_in(proven(groups=["dev"]), provider)
    services.change_provider("corp", actor=root, creates_accounts=False)
    provider.refresh_from_db()
    with pytest.raises(NotPermitted, match="no account here"):
        provisioning.sign_in(proven("2"), provider)
    lee = person("lee")
    services.link_own(proven("2"), provider, actor=lee)
    assert provisioning.sign_in(proven("2"), provider)[0] == lee


def test_linked_identities_make_one_person_also_after_they_ended(provider):
    lee, mo = person("lee"), person("mo")
    services.link_own(proven("7"), provider, actor=lee)
    with pytest.raises(Conflict, match="belongs to an account"):
        services.link_own(proven("7"), provider, actor=mo)
    assert why_not_counted(mo, [lee.pk]) == ""
    lee.set_password("a password to come back with")
    lee.save()
    services.unlink(identities_of(lee).get().pk, actor=lee)
    services.link_own(proven("7"), provider, actor=mo)
    assert "count as one person" in why_not_counted(mo, [lee.pk])
    assert "count as one person" in why_not_counted(lee, [mo.pk])
    assert why_not_counted(person("third"), [lee.pk]) == ""


def test_mail_that_a_provider_verified_makes_one_person(provider):
    lee, mo = person("lee"), person("mo")
    User.objects.filter(pk=mo.pk).update(email="Same@example.com", email_verified_at=clock.now())
    services.link_own(proven("7", email="same@example.com"), provider, actor=lee)
    assert why_not_counted(lee, [mo.pk]) == ""  # not verified
    Identity.objects.update(verified_mail="same@example.com")
    assert "count as one person" in why_not_counted(lee, [mo.pk])


def test_last_way_in_is_not_unlinked_by_oneself(provider, root):
    kim, _ = provisioning.sign_in(proven(groups=["dev"]), provider)
    identity = identities_of(kim).get()
    with pytest.raises(Conflict, match="only way"):
        services.unlink(identity.pk, actor=kim)
    with pytest.raises(NotFound):
        services.unlink(identity.pk, actor=person("mo"))
    services.unlink(identity.pk, actor=root)
    assert groups_of(kim) == []


def test_removed_rule_and_provider_take_what_they_gave(provider, root):
    kim, _ = provisioning.sign_in(proven(groups=["dev", "ops-1"]), provider)
    rule = provider.rules.get(role__slug="viewer")
    effects = services.effects_of("corp", actor=root, remove=rule.pk)
    assert [(each.username, each.gains, each.loses) for each in effects] == [
        ("kim", (), ("role viewer in team shop, *",))]  # fmt: skip
    services.delete_rule("corp", rule.pk, actor=root)
    assert (groups_of(kim), roles_of(kim)) == (["developers"], [])
    services.delete_provider("corp", actor=root)
    assert groups_of(kim) == []
    assert not identities_of(kim).exists()
    assert User.objects.filter(pk=kim.pk, is_active=True).exists()


def test_effects_of_a_new_rule_come_from_last_sign_ins(provider, root):
    provisioning.sign_in(proven(groups=["dev"]), provider)
    provisioning.sign_in(proven("2", groups=["qa"]), provider)
    effects = services.effects_of("corp", actor=root, add=NewRule("groups", "qa", role="creator", team="shop"))
    assert [(each.username, each.gains) for each in effects] == [("kim-2", ("role creator in team shop, *",))]
    assert services.effects_of("corp", actor=root, add=NewRule("groups", "no", role="creator", team="shop")) == []


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewRule("groups", "x"), Malformed),
        (NewRule("groups", "x", group="developers", role="viewer", team="shop"), Malformed),
        (NewRule("groups", "*", "glob", group="developers"), Malformed),
        (NewRule("groups", "x", "regex", group="developers"), Malformed),
        (NewRule("groups", "x", group="unknown"), NotFound),
        (NewRule("groups", "x", role="viewer"), NotFound),
        (NewRule("groups", "x", role="viewer", team="shop", environment="unknown"), NotFound),
        (NewRule("groups", "x", role="viewer", team="shop", repository_pattern="A B"), Malformed),
        (NewRule("groups", "dev", group="developers"), Conflict),  # is there already
    ],
)
def test_bad_rules_are_refused(provider, root, new, error):
    with pytest.raises(error):
        services.create_rule("corp", new, actor=root)


def test_group_that_people_fill_takes_no_rule(provider, root):
    authority.create_group(actor=root, slug="byhand")
    with pytest.raises(Conflict, match="People add the members"):
        services.create_rule("corp", NewRule("groups", "x", group="byhand"), actor=root)


def test_secret_is_sealed_and_kept_until_a_new_one_comes(provider, root):
    assert b"hush" not in bytes(provider.client_secret_encrypted)
    assert secret_of(provider) == "hush hush"
    services.change_provider("corp", actor=root, name="Corp 2")
    provider.refresh_from_db()
    assert (provider.name, secret_of(provider)) == ("Corp 2", "hush hush")
    with pytest.raises(Malformed, match="secret of the other client"):
        services.change_provider("corp", actor=root, client_id="other")
    services.change_provider("corp", actor=root, client_id="other", client_secret="new")
    provider.refresh_from_db()
    assert secret_of(provider) == "new"
    assert (type(provider), "client_secret_encrypted") in sealing.registered_fields()
    assert "hush" not in str(list(AuditEvent.objects.values_list("details", flat=True)))


@pytest.mark.parametrize(
    "issuer",
    ["http://login.example.com", "ftp://x", "https://", "https://u:p@x.example.com", "https://x.example.com/?a"],
)
def test_c1_issuers_that_are_refused(root, issuer, settings):
    values = {"actor": root, "slug": "x", "name": "x", "client_id": "x", "client_secret": "x"}
    with pytest.raises(Malformed):
        services.create_provider(issuer=issuer, **values)
    settings.SIGN_IN_ALLOW = ["login.example.com"]
    services.create_provider(issuer="http://login.example.com", **values)


def test_callback_is_an_address_of_ours(settings):
    assert callback_of("corp") == f"{settings.PUBLIC_URL}/sso/corp/callback/"
    assert resolve("/sso/corp/callback/").url_name == "sso-callback"


def test_g7_only_admins_manage_sign_in(provider, team):
    owner = dock.user("owner", "owner", of=team)
    for act in (
        lambda: services.create_rule("corp", NewRule("groups", "x", role="owner", team="shop"), actor=owner),
        lambda: services.change_provider("corp", actor=owner, name="x"),
        lambda: services.delete_provider("corp", actor=owner),
        lambda: services.set_policy(actor=owner, passwords_only_for_admins=True),
        lambda: services.preview("corp", {}, actor=owner),
    ):
        with pytest.raises(NotPermitted):
            act()


def test_passwords_only_for_admins_leaves_admins_a_way(root):
    kim = person("kim")
    with pytest.raises(Conflict, match="Add and enable a provider"):
        services.set_policy(actor=root, passwords_only_for_admins=True)
    services.create_provider(actor=root, slug="x", name="x", issuer=ISSUER, client_id="x", client_secret="x")
    assert takes_password(kim)
    services.set_policy(actor=root, passwords_only_for_admins=True)
    assert (takes_password(kim), takes_password(root)) == (False, True)


def test_provider_lets_only_accounts_in_until_it_may_create_them(root, team):
    made = services.create_provider(
        actor=root, slug="corp", name="Corp", issuer=ISSUER, client_id="x", client_secret="hush hush"
    )
    with pytest.raises(NotPermitted, match="no account here"):
        provisioning.sign_in(proven(), made)
    assert not User.objects.filter(username="kim").exists()
    services.change_provider("corp", actor=root, creates_accounts=True)
    made.refresh_from_db()
    assert provisioning.sign_in(proven(), made)[0].username == "kim"
