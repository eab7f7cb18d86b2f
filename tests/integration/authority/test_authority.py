"""Grants take effect immediately, expire by the database clock, and never exceed the rights of the granting user."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone
from guardian.core import ObjectPermissionChecker

from accounts import tokens
from accounts.models import Role, Team, User
from accounts.queries import system_user
from accounts.verbs import BUILTIN_ROLES, Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import people_who, repositories_visible_to, teams_visible_to
from lifecycle.authority.rights import may
from lifecycle.authority.services.environments import create_environment
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.core.patterns import matches
from lifecycle.registry.models import Registry, Repository

pytestmark = pytest.mark.django_db


@pytest.fixture
def team():
    return services.create_team(actor=system_user(), slug="shop", name="Shop")


@pytest.fixture
def kim():
    return User.objects.create(username="kim")


def repository(team, name):
    registry, _ = Registry.objects.get_or_create(name="managed", endpoint="http://localhost:1", is_managed=True)
    return Repository.objects.create(registry=registry, team=team, name=name, family=name)


def grant_role(team, user, role, **more):
    return services.add_member(team.pk, actor=system_user(), username=user.username, role=role, **more)


def test_builtin_roles_in_database_equal_those_in_code():
    stored = {role.slug: frozenset(role.verbs) for role in Role.objects.filter(is_builtin=True)}
    assert stored == {slug: frozenset(verb.value for verb in verbs) for slug, verbs in BUILTIN_ROLES.items()}


@pytest.mark.parametrize(
    ("pattern", "family", "expected"),
    [
        ("*", "shop/api", True),
        ("shop/api", "shop/api", True),
        ("shop/api", "shop/api2", False),
        ("shop/*", "shop/a/b", True),
        ("*/api", "shop/api", True),
        ("shop/*/x", "shop/y", False),
        ("shop*shop", "shop", False),
        ("shop/*", None, False),
        ("*", None, True),
    ],
)
def test_pattern_matches_alike_in_python_and_sql(team, kim, pattern, family, expected):
    assert matches(pattern, family) is expected
    if family is not None:
        row = repository(team, family)
        grant_role(team, kim, "viewer", repository_pattern=pattern)
        assert (row in repositories_visible_to(kim)) is expected
        assert (kim in people_who(Verb.IMAGE_VIEW, team=team, family=family)) is expected


def test_environment_grant_applies_only_to_its_environment(team, kim):
    staging, production = (
        create_environment(team, actor=system_user(), slug=slug, name=slug, prefix=slug)
        for slug in ("staging", "production")
    )
    row = repository(team, "shop/api")
    grant_role(team, kim, "approver", environment="staging")
    assert may(kim, Verb.PROMOTION_APPROVE, repository=row, environment=staging)
    assert not may(kim, Verb.PROMOTION_APPROVE, repository=row, environment=production)
    assert not may(kim, Verb.PROMOTION_APPROVE, repository=row)


def test_expired_grant_and_inactive_user_have_no_rights(team, kim):
    row = repository(team, "shop/api")
    grant = grant_role(team, kim, "viewer")
    assert may(kim, Verb.IMAGE_VIEW, repository=row)
    RoleGrant.objects.filter(pk=grant.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not may(kim, Verb.IMAGE_VIEW, repository=row)
    assert not repositories_visible_to(kim).exists()
    RoleGrant.objects.filter(pk=grant.pk).update(expires_at=None)
    kim.is_active = False
    assert not may(kim, Verb.IMAGE_VIEW, repository=row)
    assert not repositories_visible_to(kim).exists()


def test_add_member_refuses_role_with_verbs_the_actor_lacks(team, kim):
    lee = User.objects.create(username="lee")
    manager = Role.objects.create(slug="manager", name="Manager", verbs=["team.manage", "image.view"])
    grant_role(team, kim, manager.slug)
    with pytest.raises(NotPermitted, match=r"promotion\.approve"):
        services.add_member(team.pk, actor=kim, username="lee", role="approver")
    assert services.add_member(team.pk, actor=kim, username="lee", role="viewer").user == lee


def test_add_member_requires_team_manage_and_hides_team_from_outsiders(team, kim):
    lee = User.objects.create(username="lee")
    grant_role(team, kim, "viewer")
    with pytest.raises(NotPermitted):
        services.add_member(team.pk, actor=kim, username="lee", role="viewer")
    with pytest.raises(NotFound):
        services.add_member(team.pk, actor=lee, username="lee", role="owner")
    assert list(teams_visible_to(kim)) == [team]
    assert not teams_visible_to(lee).exists()


def test_last_owner_cannot_be_removed(team, kim):
    grant = grant_role(team, kim, "owner")
    with pytest.raises(Conflict, match="last owner"):
        services.revoke_grant(grant.pk, actor=kim)
    lee = User.objects.create(username="lee")
    grant_role(team, lee, "owner", repository_pattern="shop/*")
    with pytest.raises(Conflict, match="last owner"):
        services.revoke_grant(grant.pk, actor=kim)
    grant_role(team, lee, "owner")
    services.revoke_grant(grant.pk, actor=lee)
    assert not may(kim, Verb.IMAGE_VIEW, team=team)


def test_owner_with_expiry_does_not_replace_last_owner(team, kim):
    grant = grant_role(team, kim, "owner")
    lee = User.objects.create(username="lee")
    grant_role(team, lee, "owner", expires_at=timezone.now() + timedelta(days=1))
    with pytest.raises(Conflict, match="last owner"):
        services.revoke_grant(grant.pk, actor=kim)
    grant_role(team, lee, "owner")
    services.revoke_grant(grant.pk, actor=lee)


def test_guardian_rows_follow_grants_and_can_be_rebuilt(team, kim):
    row = repository(team, "shop/api")
    grant = grant_role(team, kim, "viewer", repository_pattern="shop/*")
    assert ObjectPermissionChecker(kim).has_perm("image_view", row)
    assert not ObjectPermissionChecker(kim).has_perm("image_view", team)
    RoleGrant.objects.filter(pk=grant.pk).delete()
    call_command("rebuild_grants", stdout=io.StringIO())
    assert not ObjectPermissionChecker(kim).has_perm("image_view", row)


def test_create_team_refuses_target_prefix_and_invalid_slug(team):
    create_environment(team, actor=system_user(), slug="live", name="Live", prefix="live")
    with pytest.raises(Conflict, match="target prefix"):
        services.create_team(actor=system_user(), slug="live", name="")
    with pytest.raises(Malformed):
        services.create_team(actor=system_user(), slug="No Slug", name="")


def test_only_admins_create_teams(kim):
    with pytest.raises(NotPermitted):
        services.create_team(actor=kim, slug="mine", name="")
    kim.is_superuser = True
    made = services.create_team(actor=kim, slug="mine", name="")
    assert may(kim, Verb.IMAGE_CREATE, team=made)


def test_token_is_found_by_its_text_until_revoked(kim, capsys):
    call_command("create_token", "kim", "--days", "1")
    text = capsys.readouterr().out.strip()
    row = tokens.find_token(text)
    assert row.user == kim
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    assert tokens.find_token(wrong) is None
    assert text not in str(list(AuditEvent.objects.values_list("canonical", flat=True)))
    services.revoke_api_token(row.pk, actor=kim)
    assert tokens.find_token(text) is None


def test_visible_repositories_agree_with_check_for_mixed_grants(team, kim):
    other = services.create_team(actor=system_user(), slug="base", name="Base")
    staging = create_environment(team, actor=system_user(), slug="staging", name="Staging", prefix="stage")
    for name in ("shop/a_b", "shop/axb", "shop/api", "shop/web/ui"):
        repository(team, name)
    repository(other, "base/a_b")
    target = repository(team, "stage/shop/api")
    Repository.objects.filter(pk=target.pk).update(
        family="shop/api", environment=staging, source=Repository.objects.get(name="shop/api")
    )
    rows = list(Repository.objects.select_related("team", "environment"))
    seen = []
    for role, more in (
        ("viewer", {"repository_pattern": "shop/a_b"}),
        ("viewer", {"repository_pattern": "shop/web/*"}),
        ("viewer", {"environment": "staging"}),
        ("creator", {"repository_pattern": "shop/axb"}),
        ("viewer", {}),
    ):
        grant_role(team, kim, role, **more)
        for verb in (Verb.IMAGE_VIEW, Verb.IMAGE_CREATE):
            listed = set(repositories_visible_to(kim, verb))
            assert listed == {row for row in rows if may(kim, verb, repository=row, environment=row.environment)}
        seen.append(sorted(row.name for row in repositories_visible_to(kim)))
    assert seen[0] == ["shop/a_b"]
    assert seen[2] == ["shop/a_b", "shop/web/ui", "stage/shop/api"]
    assert len(seen[4]) == 5  # all of this team, nothing of the other team


def test_user_without_grants_sees_nothing_in_one_query(team, kim, django_assert_num_queries):
    repository(team, "shop/api")
    with django_assert_num_queries(1):
        assert not list(repositories_visible_to(kim))
    grant_role(team, kim, "viewer")
    assert [row.name for row in repositories_visible_to(kim)] == ["shop/api"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("slug", "chosen", "wanted"),
    [
        ("dev", {}, (False, 0, 3 * 86_400, "latest-wins")),
        ("staging", {}, (False, 1, 3 * 86_400, "queue")),
        ("production", {}, (True, 2, 86_400, "queue")),
        ("production", {"is_production": False}, (False, 1, 3 * 86_400, "queue")),
        ("live", {"is_production": True, "required_approvals": 1}, (True, 1, 86_400, "queue")),
    ],
)
def test_new_environment_gets_defaults_by_its_name(slug, chosen, wanted) -> None:
    team = Team.objects.create(slug="shop", name="Shop")
    made = create_environment(team, actor=system_user(), slug=slug, name=slug, prefix=slug, **chosen)
    got = (made.is_production, made.required_approvals, made.execute_within_s, made.queue_policy)
    assert got == wanted
    assert (made.approve_within_s, made.soak_s, made.auto_execute, made.revision) == (7 * 86_400, 0, False, 1)
    assert (made.excludes_requester, made.excludes_build_trigger, made.excludes_committer) == (True, True, True)
