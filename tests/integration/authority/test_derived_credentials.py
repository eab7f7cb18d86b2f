"""Tokens end with what they were made from, and robots have no more than the user who is responsible for them."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.test import Client
from django.utils import timezone
from guardian.core import ObjectPermissionChecker

from accounts import tokens
from accounts.models import ApiToken, Robot, Role, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.explaining import explain
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import project
from lifecycle.authority.queries import repositories_visible_to, teams_visible_to, teams_where
from lifecycle.authority.rights import may
from lifecycle.core.errors import Conflict, NotPermitted
from lifecycle.oci.scopes import parse_scopes
from lifecycle.registry.models import Registry, Repository
from lifecycle.tokens.rights import allowed_actions

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def events(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action).order_by("pk"))


def api(text: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {text}"})


@pytest.fixture
def shop():
    """Team shop with shop/api; kim is its owner, ada is an admin, and robot ci was created by kim."""
    team = services.create_team(actor=system_user(), slug="shop", name="Shop")
    registry = Registry.objects.create(name="managed", endpoint="http://localhost:1", is_managed=True)
    Repository.objects.create(registry=registry, team=team, name="shop/api", family="shop/api")
    kim, lee = User.objects.create(username="kim"), User.objects.create(username="lee")
    ada = User.objects.create(username="ada", is_superuser=True)
    for user in (kim, lee):
        services.add_member(team.pk, actor=system_user(), username=user.username, role="owner")
    robot = services.create_robot(team.pk, actor=kim, name="ci")
    return SimpleNamespace(team=team, kim=kim, lee=lee, ada=ada, robot=robot, user=robot.user)


def with_token(shop) -> tuple[ApiToken, str, ApiToken, str]:
    """Return a token of kim, and a token of kim that was created with it over the API: (row, text) of each."""
    text = services.create_api_token(shop.kim, actor=shop.kim, name="laptop", days=10)
    made = api(text).post("/api/v1/tokens/", {"name": "script"}, "application/json")
    assert made.status_code == 201
    child = made.json()["token"]
    return tokens.find_token(text), text, tokens.find_token(child), child


def test_token_made_with_a_token_is_revoked_with_it_and_recorded(shop):
    parent, text, child, child_text = with_token(shop)
    assert child.parent_id == parent.pk
    assert child.expires_at <= parent.expires_at
    grandchild = api(child_text).post("/api/v1/tokens/", {"name": "inner"}, "application/json").json()["token"]
    other = services.create_api_token(shop.kim, actor=shop.kim, name="other")
    assert all(api(each).get("/api/v1/images/").status_code == 200 for each in (text, child_text, grandchild, other))
    services.revoke_api_token(parent.pk, actor=shop.kim)
    assert [api(each).get("/api/v1/images/").status_code for each in (text, child_text, grandchild, other)] == [
        401, 401, 401, 200,
    ]  # fmt: skip
    assert [event.details["lookup"] for event in events("token.revoked")] == [
        parent.lookup, child.lookup, tokens.lookup_of(grandchild),
    ]  # fmt: skip
    assert events("token.created")[1].details["parent"] == parent.lookup


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"revoked_at": timezone.now()}, "another token"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "another token"),
    ],
)
def test_child_is_checked_against_its_parent_at_each_use(shop, change, why):
    parent, _text, _child, child_text = with_token(shop)
    grandchild = api(child_text).post("/api/v1/tokens/", {"name": "inner"}, "application/json").json()["token"]
    assert api(grandchild).get("/api/v1/images/").status_code == 200
    ApiToken.objects.filter(pk=parent.pk).update(**change)  # by hand, without the service
    refused = api(grandchild).get("/api/v1/images/")
    assert refused.status_code == 401
    assert why in refused.json()["detail"]


def test_robot_token_made_with_a_token_ends_with_it(shop):
    text = services.create_api_token(shop.kim, actor=shop.kim, name="laptop", days=10)
    url = f"/api/v1/teams/shop/robots/{shop.robot.pk}/tokens/"
    assert api(text).post(url, {"name": "t", "days": 300}, "application/json").status_code == 403
    made = api(text).post(url, {"name": "t"}, "application/json").json()
    assert tokens.find_token(made["token"]).expires_at <= tokens.find_token(text).expires_at
    browser = Client()
    browser.force_login(shop.kim, backend=BACKEND)
    long = browser.post(f"/teams/shop/robots/{shop.robot.pk}/tokens/", {"name": "t", "days": "300"})
    assert long.status_code == 200
    assert tokens.find_token(made["token"]) is not None
    services.revoke_api_token(tokens.find_token(text).pk, actor=shop.kim)
    assert tokens.find_token(made["token"]) is None
    assert events("token.revoked")[-1].team == shop.team
    assert ApiToken.objects.filter(user=shop.user, revoked_at=None).count() == 1  # that of the browser


def test_registry_sign_in_is_listed_audited_revocable_and_ends_with_its_token(shop):
    text = services.create_api_token(shop.kim, actor=shop.kim, name="laptop", days=10)
    parent = tokens.find_token(text)
    sign_in = services.create_registry_sign_in(parent, client="docker")
    row = tokens.find_token(sign_in)
    assert (row.kind, row.parent_id, row.expires_at <= parent.expires_at) == ("ref", parent.pk, True)
    assert events("token.created")[-1].details == {
        "user": "kim", "lookup": row.lookup, "days": events("token.created")[-1].details["days"], "kind": "ref",
        "parent": parent.lookup, "seen_by": "",
    }  # fmt: skip
    listed = api(text).get("/api/v1/tokens/").json()["results"]
    assert [(entry["kind"], entry["parent_id"]) for entry in listed] == [("ref", parent.pk), ("pat", None)]
    assert api(text).delete(f"/api/v1/tokens/{row.pk}/").status_code == 204
    assert tokens.find_token(sign_in) is None
    again = services.create_registry_sign_in(parent, client="docker")
    assert tokens.find_token(again) is not None
    services.revoke_api_token(parent.pk, actor=shop.kim)
    assert tokens.find_token(again) is None


def test_surplus_registry_sign_ins_are_revoked_and_recorded(shop):
    parent = tokens.find_token(services.create_api_token(shop.kim, actor=shop.kim, name="laptop"))
    first, *others = (services.create_registry_sign_in(parent, client="docker") for _ in range(21))
    assert tokens.find_token(first) is None
    assert all(tokens.find_token(text) is not None for text in others)
    assert len(events("token.revoked")) == 1


def test_robot_token_of_a_deactivated_user_is_refused_and_others_are_not(shop):
    _row, known = services.create_robot_token(shop.robot.pk, actor=shop.lee, name="of lee")
    _row, fine = services.create_robot_token(shop.robot.pk, actor=shop.kim, name="of kim")
    services.deactivate(shop.lee.pk, actor=shop.ada)
    refused = api(known).get("/api/v1/teams/shop/")
    assert (refused.status_code, "created by lee" in refused.json()["detail"]) == (401, True)
    assert api(fine).get("/api/v1/teams/shop/").status_code == 200


def all_answers(shop) -> tuple[bool, ...]:
    """Return every answer to: may the robot see, and push to, shop/api?"""
    user = User.objects.get(pk=shop.user.pk)
    repository = Repository.objects.get(name="shop/api")
    scopes = parse_scopes(["repository:shop/api:pull,push"])
    return (
        bool(may(user, Verb.IMAGE_CREATE, repository=repository)),
        repositories_visible_to(user, Verb.IMAGE_CREATE).exists(),
        allowed_actions(user, scopes).get(("repository", "shop/api")) == {"pull", "push"},
        teams_where(user, Verb.IMAGE_CREATE).exists(),
        ObjectPermissionChecker(user).has_perm("image_create", shop.team),
        explain(user.username, Verb.IMAGE_CREATE, team=shop.team, family="shop/api").is_allowed,
    )


def replace_role(shop, role: str) -> None:
    """Replace every role of kim in the team."""
    services.add_member(shop.team.pk, actor=shop.ada, username="kim", role=role)
    for grant in RoleGrant.objects.filter(user=shop.kim).exclude(role__slug=role):
        services.revoke_grant(grant.pk, actor=shop.ada)


def test_robot_never_has_more_than_its_maker_whoever_widened_it(shop):
    replace_role(shop, "viewer")
    services.grant_robot(shop.robot.pk, actor=shop.ada, role="creator")  # an admin can grant any role
    assert all_answers(shop) == (False,) * 6
    why = may(User.objects.get(pk=shop.user.pk), Verb.IMAGE_CREATE, team=shop.team).reason
    assert why.startswith("kim is responsible for shop+ci and does not have image.create here.")
    assert "kim is responsible" in explain("shop+ci", Verb.IMAGE_CREATE, team=shop.team).steps[-1].text
    replace_role(shop, "creator")
    assert all_answers(shop) == (True,) * 6


def test_robot_loses_a_right_with_its_maker_at_once(shop):
    services.grant_robot(shop.robot.pk, actor=shop.kim, role="creator")
    assert all_answers(shop) == (True,) * 6
    RoleGrant.objects.filter(user=shop.kim).update(expires_at=timezone.now() - timedelta(seconds=1))
    project(shop.kim)
    assert all_answers(shop) == (False,) * 6


def test_bound_follows_patterns_and_environments_of_the_maker(shop):
    services.grant_robot(shop.robot.pk, actor=shop.kim, role="creator")
    services.create_role(actor=shop.ada, slug="crew", name="Crew", verbs=["image.view", "image.create"])
    services.add_member(shop.team.pk, actor=shop.ada, username="kim", role="crew", repository_pattern="shop/web")
    for grant in RoleGrant.objects.filter(user=shop.kim, role__slug="owner"):
        services.revoke_grant(grant.pk, actor=shop.ada)
    Repository.objects.create(registry=Registry.objects.get(), team=shop.team, name="shop/web", family="shop/web")
    user = User.objects.get(pk=shop.user.pk)
    assert [row.name for row in repositories_visible_to(user)] == ["shop/web"]
    scopes = parse_scopes(["repository:shop/api:push", "repository:shop/web:push"])
    allowed = allowed_actions(user, scopes)
    assert "push" in allowed[("repository", "shop/web")]
    assert "push" not in allowed[("repository", "shop/api")]


def test_robot_is_suspended_without_its_maker_until_taken_over(shop):
    services.grant_robot(shop.robot.pk, actor=shop.kim, role="creator")
    _row, of_kim = services.create_robot_token(shop.robot.pk, actor=shop.kim, name="of kim")
    _row, of_lee = services.create_robot_token(shop.robot.pk, actor=shop.lee, name="of lee")
    services.deactivate(shop.kim.pk, actor=shop.ada)
    assert all_answers(shop) == (False,) * 6
    assert not teams_visible_to(User.objects.get(pk=shop.user.pk)).exists()
    for text in (of_kim, of_lee):
        refused = api(text).get("/api/v1/teams/shop/")
        assert refused.status_code == 401
    assert "suspended" in refused.json()["detail"]
    assert Robot.objects.get(pk=shop.robot.pk).is_suspended
    browser = Client()
    browser.force_login(shop.lee, backend=BACKEND)
    assert "Suspended" in browser.get("/teams/shop/?tab=robots").content.decode()
    page = f"/teams/shop/robots/{shop.robot.pk}/"
    assert "Take over" in browser.get(page).content.decode()
    assert browser.post(page + "take-over/").status_code == 302
    assert all_answers(shop) == (True,) * 6
    assert api(of_lee).get("/api/v1/teams/shop/").status_code == 200
    assert api(of_kim).get("/api/v1/teams/shop/").status_code == 401  # kim knows its text
    assert events("robot.taken_over")[0].details == {
        "user": "shop+ci", "before": "kim", "after": "lee", "revoked": 1,
    }  # fmt: skip
    services.reactivate(shop.kim.pk, actor=shop.ada)
    assert api(of_kim).get("/api/v1/teams/shop/").status_code == 401


def test_only_a_person_with_all_rights_of_the_robot_takes_it_over(shop):
    services.grant_robot(shop.robot.pk, actor=shop.kim, role="creator")
    services.deactivate(shop.kim.pk, actor=shop.ada)
    mia = User.objects.create(username="mia")
    Role.objects.create(slug="keeper", name="Keeper", verbs=["robot.manage", "image.view"])
    services.add_member(shop.team.pk, actor=shop.ada, username="mia", role="keeper")
    with pytest.raises(NotPermitted, match=r"image\.create"):
        services.take_over_robot(shop.robot.pk, actor=mia)
    with pytest.raises(NotPermitted, match=r"image\.create"):  # an admin without a grant
        services.take_over_robot(shop.robot.pk, actor=shop.ada)
    services.add_member(shop.team.pk, actor=shop.ada, username="mia", role="creator")
    services.take_over_robot(shop.robot.pk, actor=mia)
    with pytest.raises(Conflict, match="already responsible"):
        services.take_over_robot(shop.robot.pk, actor=mia)
    assert all_answers(shop) == (True,) * 6


def test_take_over_by_the_api_shows_who_is_responsible(shop):
    text = services.create_api_token(shop.lee, actor=shop.lee, name="laptop")
    url = f"/api/v1/teams/shop/robots/{shop.robot.pk}/"
    assert (api(text).get(url).json()["responsible"], api(text).get(url).json()["is_suspended"]) == ("kim", False)
    services.deactivate(shop.kim.pk, actor=shop.ada)
    assert api(text).get(url).json()["is_suspended"]
    taken = api(text).post(url + "take-over/")
    assert (taken.status_code, taken.json()["responsible"], taken.json()["is_suspended"]) == (200, "lee", False)


def test_robot_of_a_robot_is_bounded_by_both(shop):
    inner = services.create_robot(shop.team.pk, actor=shop.kim, name="inner")
    for robot in (shop.robot, inner):
        services.grant_robot(robot.pk, actor=shop.kim, role="viewer", repository_pattern="*")
    Robot.objects.filter(pk=shop.robot.pk).update(responsible=inner.user)
    assert tokens.makers_of(shop.user) == [inner.user, shop.kim]
    assert may(shop.user, Verb.IMAGE_VIEW, team=shop.team)
    RoleGrant.objects.filter(user=shop.kim).delete()
    assert not may(shop.user, Verb.IMAGE_VIEW, team=shop.team)
    assert not repositories_visible_to(shop.user).exists()
