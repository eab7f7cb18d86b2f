"""Roles, robots, accounts and the access explainer: what is allowed, what is refused, and immediate effects."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from guardian.core import ObjectPermissionChecker

from accounts import tokens
from accounts.models import ApiToken, Role, User
from accounts.queries import system_user
from accounts.verbs import BUILTIN_ROLES, Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.constants import VERB_GROUPS, VERB_WORDS
from lifecycle.authority.explaining import explain
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.rights import may
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted, PolicyBlocked
from lifecycle.promotion import services as promotions

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def team():
    return services.create_team(actor=system_user(), slug="shop", name="Shop")


@pytest.fixture
def kim():
    return User.objects.create(username="kim")


@pytest.fixture
def admin():
    return User.objects.create(username="admin", is_superuser=True)


def grant_role(team, user, role, **more):
    return services.add_member(team.pk, actor=system_user(), username=user.username, role=role, **more)


def last_event(action):
    return AuditEvent.objects.filter(action=action).order_by("-pk").first()


def test_every_verb_has_a_description_and_one_group():
    grouped = [verb for _title, verbs in VERB_GROUPS for verb in verbs]
    assert sorted(grouped) == sorted(Verb)
    assert set(VERB_WORDS) == set(Verb)


def test_repeated_grant_changes_its_expiry_and_is_recorded(team, kim):
    end = timezone.now() + timedelta(days=2)
    first = grant_role(team, kim, "viewer")
    assert grant_role(team, kim, "viewer").pk == first.pk
    assert last_event("grant.changed") is None
    assert grant_role(team, kim, "viewer", expires_at=end).pk == first.pk
    assert RoleGrant.objects.get().expires_at == end
    assert last_event("grant.changed").details["before"] == {"expires_at": "never"}


def test_grant_requires_valid_pattern_and_future_expiry(team, kim):
    with pytest.raises(Malformed, match="not a valid repository pattern"):
        grant_role(team, kim, "viewer", repository_pattern="Shop API")
    with pytest.raises(Malformed, match="in the past"):
        grant_role(team, kim, "viewer", expires_at=timezone.now())
    assert not RoleGrant.objects.exists()


def test_last_owner_grant_cannot_get_an_expiry(team, kim):
    grant_role(team, kim, "owner")
    with pytest.raises(Conflict, match="last owner"):
        grant_role(team, kim, "owner", expires_at=timezone.now() + timedelta(days=1))
    grant_role(team, User.objects.create(username="lee"), "owner")
    grant_role(team, kim, "owner", expires_at=timezone.now() + timedelta(days=1))


def test_grant_is_revoked_only_through_its_own_team(team, kim, admin):
    other = services.create_team(actor=admin, slug="other", name="")
    grant = grant_role(team, kim, "viewer")
    with pytest.raises(NotFound):
        services.revoke_grant(grant.pk, actor=admin, team_id=other.pk)
    services.revoke_grant(grant.pk, actor=admin, team_id=team.pk)
    assert not may(kim, Verb.IMAGE_VIEW, team=team)


def test_only_admins_create_roles_and_builtin_roles_are_fixed(kim, admin):
    with pytest.raises(NotPermitted):
        services.create_role(actor=kim, slug="crew", name="Crew", verbs=["image.view"])
    made = services.create_role(actor=admin, slug="crew", name="Crew", verbs=["image.view", "image.scan"])
    assert made.verbs == ["image.scan", "image.view"]
    with pytest.raises(Conflict):
        services.create_role(actor=admin, slug="crew", name="Crew", verbs=["image.view"])
    with pytest.raises(Malformed, match="Unknown verbs"):
        services.create_role(actor=admin, slug="x", name="X", verbs=["image.everything"])
    with pytest.raises(Malformed, match="at least one"):
        services.create_role(actor=admin, slug="x", name="X", verbs=[])
    with pytest.raises(NotPermitted, match="built-in"):
        services.change_role("viewer", actor=admin, name="Viewer", verbs=["image.delete"])
    assert set(Role.objects.get(slug="viewer").verbs) == BUILTIN_ROLES["viewer"]


def test_changed_role_takes_effect_immediately(team, kim, admin):
    services.create_role(actor=admin, slug="crew", name="Crew", verbs=["image.view"])
    grant_role(team, kim, "crew")
    assert not may(kim, Verb.IMAGE_SCAN, team=team)
    assert not ObjectPermissionChecker(kim).has_perm("image_scan", team)
    services.change_role("crew", actor=admin, name="Crew", verbs=["image.scan"])
    assert may(kim, Verb.IMAGE_SCAN, team=team)
    assert not may(kim, Verb.IMAGE_VIEW, team=team)
    assert ObjectPermissionChecker(kim).has_perm("image_scan", team)
    assert not ObjectPermissionChecker(kim).has_perm("image_view", team)
    assert last_event("role.changed").details["before"]["verbs"] == ["image.view"]
    assert last_event("role.changed").details["after"]["verbs"] == ["image.scan"]


def test_role_in_use_cannot_be_deleted(team, kim, admin):
    services.create_role(actor=admin, slug="crew", name="Crew", verbs=["image.view"])
    grant = grant_role(team, kim, "crew")
    with pytest.raises(Conflict):
        services.delete_role("crew", actor=admin)
    services.revoke_grant(grant.pk, actor=admin)
    with pytest.raises(NotPermitted):
        services.delete_role("crew", actor=kim)
    services.delete_role("crew", actor=admin)
    assert not Role.objects.filter(slug="crew").exists()


@pytest.fixture
def robot(team, kim):
    """A robot of a team that kim owns."""
    grant_role(team, kim, "owner")
    return services.create_robot(team.pk, actor=kim, name="ci")


def test_robot_loses_tokens_and_grants_when_retired(team, kim, robot):
    assert robot.user.username == "shop+ci"
    services.grant_robot(robot.pk, actor=kim, role="creator", repository_pattern="shop/*")
    _row, text = services.create_robot_token(robot.pk, actor=kim, name="pipeline", days=1)
    assert text.startswith("gdk_rob_")
    assert Client().get("/api/v1/teams/shop/", headers={"Authorization": f"Bearer {text}"}).status_code != 401
    services.retire_robot(robot.pk, actor=kim)
    assert tokens.find_token(text) is None
    assert not RoleGrant.objects.filter(user=robot.user).exists()
    with pytest.raises(Conflict, match="deactivated"):
        services.create_robot_token(robot.pk, actor=kim, name="again")
    with pytest.raises(Conflict):
        services.create_robot(team.pk, actor=kim, name="ci")


def test_revoking_one_robot_token_keeps_the_other(kim, robot):
    first, first_text = services.create_robot_token(robot.pk, actor=kim, name="one")
    _second, second_text = services.create_robot_token(robot.pk, actor=kim, name="two")
    mine = services.create_api_token(kim, actor=kim, name="laptop")
    with pytest.raises(NotFound):  # the token of a user, not of this robot
        services.revoke_robot_token(robot.pk, tokens.find_token(mine).pk, actor=kim)
    services.revoke_robot_token(robot.pk, first.pk, actor=kim)
    assert tokens.find_token(first_text) is None
    assert tokens.find_token(second_text) is not None


def test_robot_grants_and_tokens_are_limited_to_rights_of_the_actor(team, kim, robot, admin):
    lee = User.objects.create(username="lee")
    services.create_role(actor=admin, slug="keeper", name="Keeper", verbs=["robot.manage", "image.view"])
    grant_role(team, lee, "keeper")
    with pytest.raises(NotPermitted, match=r"image\.create"):
        services.grant_robot(robot.pk, actor=lee, role="creator")
    services.grant_robot(robot.pk, actor=lee, role="viewer")
    services.create_robot_token(robot.pk, actor=lee, name="fine")
    services.grant_robot(robot.pk, actor=kim, role="creator")
    with pytest.raises(NotPermitted, match=r"image\.create"):
        services.create_robot_token(robot.pk, actor=lee, name="too much")
    services.create_robot_token(robot.pk, actor=kim, name="fine too")


@pytest.mark.parametrize("role", ["viewer", "creator", None])
def test_robot_actions_require_robot_manage(team, robot, role):
    lee = User.objects.create(username="lee")
    if role:
        grant_role(team, lee, role)
    expected = NotPermitted if role else NotFound
    for action in (
        lambda: services.create_robot(team.pk, actor=lee, name="mine"),
        lambda: services.grant_robot(robot.pk, actor=lee, role="viewer"),
        lambda: services.create_robot_token(robot.pk, actor=lee, name="mine"),
        lambda: services.retire_robot(robot.pk, actor=lee),
    ):
        with pytest.raises(expected):
            action()


def test_admin_creates_account_with_working_password(admin, kim):
    with pytest.raises(NotPermitted):
        services.create_person(actor=kim, username="lee")
    user, password = services.create_person(actor=admin, username="lee", with_password=True)
    assert user.check_password(password)
    assert password not in str(list(AuditEvent.objects.values_list("canonical", flat=True)))
    for name in ("lee", "shop+ci", "Lee", "", "a" * 61):
        with pytest.raises((Conflict, Malformed)):
            services.create_person(actor=admin, username=name)


def test_deactivation_ends_sessions_and_tokens_for_good(admin, kim):
    text = services.create_api_token(kim, actor=kim, name="laptop")
    browser, script = Client(), Client(headers={"Authorization": f"Bearer {text}"})
    kim.set_password("long enough for kim")
    kim.save()
    browser.force_login(kim, backend=BACKEND)
    assert (browser.get("/images/").status_code, script.get("/api/v1/images/").status_code) == (200, 200)
    services.deactivate(kim.pk, actor=admin)
    assert (browser.get("/images/").status_code, script.get("/api/v1/images/").status_code) == (302, 401)
    User.objects.filter(pk=kim.pk).update(is_active=True)  # manually, without the service: sessions stay invalid too
    assert (browser.get("/images/").status_code, script.get("/api/v1/images/").status_code) == (302, 401)
    User.objects.filter(pk=kim.pk).update(is_active=False)
    _user, password = services.reactivate(kim.pk, actor=system_user())
    assert (browser.get("/images/").status_code, script.get("/api/v1/images/").status_code) == (302, 401)
    fresh = Client()
    fresh.post("/accounts/sign-in/", {"login": "kim", "password": password})
    assert fresh.get("/images/").status_code == 200


def test_deactivate_refuses_own_account_and_last_admin(admin, kim):
    with pytest.raises(NotPermitted):
        services.deactivate(admin.pk, actor=kim)
    with pytest.raises(Conflict, match="own account"):
        services.deactivate(admin.pk, actor=admin)
    with pytest.raises(Conflict, match="last admin"):
        services.deactivate(admin.pk, actor=system_user())
    with pytest.raises(NotFound):
        services.deactivate(system_user().pk, actor=admin)
    services.deactivate(kim.pk, actor=admin)
    with pytest.raises(Conflict, match="already deactivated"):
        services.deactivate(kim.pk, actor=admin)


def test_approval_lapses_when_approver_is_deactivated(dock, request_, admin):
    promotions.approve(request_.pk, actor=dock.approver)
    request_.refresh_from_db()
    assert request_.state == "ready"
    services.deactivate(dock.approver.pk, actor=admin)
    with pytest.raises(PolicyBlocked):
        promotions.execute(request_.pk, actor=dock.deployer)
    promotions.judge_open()
    request_.refresh_from_db()
    assert request_.state == "open"
    with pytest.raises(IllegalTransition):
        promotions.execute(request_.pk, actor=dock.deployer)


def test_revoked_or_regained_right_reopens_or_readies_request(dock, request_, admin):
    promotions.approve(request_.pk, actor=dock.approver)
    grant = RoleGrant.objects.get(user=dock.approver)
    services.revoke_grant(grant.pk, actor=admin)
    promotions.judge_open()
    request_.refresh_from_db()
    assert request_.state == "open"
    services.create_role(actor=admin, slug="crew", name="Crew", verbs=["image.view"])
    grant_role(dock.team, dock.approver, "crew")
    promotions.judge_open()
    services.change_role("crew", actor=admin, name="Crew", verbs=["image.view", "promotion.approve"])
    promotions.judge_open()
    request_.refresh_from_db()
    assert request_.state == "ready"


def steps(answer):
    return [(step.is_met, step.text) for step in answer.steps]


def test_explain_agrees_with_check_and_names_missing_grant(dock):
    grant_role(dock.team, dock.outsider, "approver", repository_pattern="shop/web", environment="staging")
    for user in (dock.approver, dock.outsider, dock.owner, dock.requester, User.objects.create(username="nobody")):
        for environment in (None, dock.staging, dock.dev):
            answer = explain(
                user.username, Verb.PROMOTION_APPROVE, team=dock.team, family="shop/api", environment=environment
            )
            real = may(user, Verb.PROMOTION_APPROVE, repository=dock.repository, environment=environment)
            assert answer.is_allowed == bool(real)
            assert bool(answer.changes) is not answer.is_allowed
    answer = explain("outsider", Verb.PROMOTION_APPROVE, team=dock.team, family="shop/api", environment=dock.staging)
    grant = RoleGrant.objects.get(user=dock.outsider)
    assert steps(answer) == [
        (True, "The account is active."),
        (True, f"Grant {grant.pk} (approver) includes promotion.approve."),
        (False, f"Grant {grant.pk} (approver) covers shop/web: it does not match shop/api."),
    ]
    assert answer.changes == ("Grant approver on shop/api.",)
    assert answer.allowed == ("approver", "owner", "second")
    assert answer.granters == ("owner",)


def test_explain_reports_expired_and_other_environment_grants(dock):
    grant = RoleGrant.objects.get(user=dock.approver)
    RoleGrant.objects.filter(pk=grant.pk).update(expires_at=timezone.now() - timedelta(days=1))
    ended = explain("approver", Verb.PROMOTION_APPROVE, team=dock.team)
    assert "expired on" in ended.steps[-1].text
    grant_role(dock.team, dock.outsider, "deployer", environment="dev")
    elsewhere = explain("outsider", Verb.PROMOTION_EXECUTE, team=dock.team, family="shop/api", environment=dock.staging)
    assert elsewhere.steps[-1].text.endswith("applies to dev, not to staging.")


def test_explain_answers_alike_for_unknown_account_and_outsider(dock):
    stranger = explain("outsider", Verb.IMAGE_VIEW, team=dock.team)
    nobody = explain("no-such-account", Verb.IMAGE_VIEW, team=dock.team)
    assert steps(stranger) == [(False, "outsider has no role in team shop.")]
    assert [text.replace("no-such-account", "outsider") for _met, text in steps(nobody)] == [
        text for _met, text in steps(stranger)
    ]


def test_token_cannot_create_longer_token_and_robot_cannot_create_any(dock):
    _row, text = tokens.create_token(dock.owner, kind="pat", name="short", days=10)
    client = Client(headers={"Authorization": f"Bearer {text}"})

    def send(days):
        return client.post("/api/v1/tokens/", {"name": "x", "days": days}, "application/json")

    assert (send(9).status_code, send(11).status_code) == (201, 403)
    default = client.post(
        "/api/v1/tokens/", {"name": "x"}, "application/json"
    ).json()  # without days: expires with the token that creates it
    assert tokens.find_token(default["token"]).expires_at <= tokens.find_token(text).expires_at
    browser = Client()
    browser.force_login(dock.owner, backend=BACKEND)
    assert browser.post("/account/tokens/", {"name": "x", "days": 300}).status_code == 200
    robot = services.create_robot(dock.team.pk, actor=dock.owner, name="ci")
    _made, mine = services.create_robot_token(robot.pk, actor=dock.owner, name="t", days=300)
    machine = Client(headers={"Authorization": f"Bearer {mine}"})
    assert machine.post("/api/v1/tokens/", {"name": "x", "days": 1}, "application/json").status_code == 403
    assert ApiToken.objects.filter(user=robot.user).count() == 1


def test_token_records_last_use_and_address(kim):
    text = services.create_api_token(kim, actor=kim, name="laptop")
    Client(headers={"Authorization": f"Bearer {text}"}).get("/api/v1/images/")
    row = ApiToken.objects.get()
    assert (row.last_used_ip, row.last_used_at is not None) == ("127.0.0.1", True)
