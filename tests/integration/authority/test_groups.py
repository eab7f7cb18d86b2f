"""Groups: who is in them, what that gives and takes, who may change it, and what the log says."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import Group, GroupMember, Role, User
from accounts.queries import groups_with, people_in, system_user
from accounts.verbs import Verb
from lifecycle.alerts.telling import _people_by_pattern
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import queries, services
from lifecycle.authority.explaining import explain
from lifecycle.authority.models import HeldGrant, RoleGrant
from lifecycle.authority.projection import project
from lifecycle.authority.rights import may
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.environments.models import ApprovalRule, Environment
from lifecycle.promotion.approval_rules import rules_of, why_not_satisfiable
from tests.factories.people import person, robot

pytestmark = pytest.mark.django_db


@pytest.fixture
def team():
    return services.create_team(actor=system_user(), slug="shop", name="Shop")


@pytest.fixture
def owner(team):
    user = person("owner")
    services.add_member(team.pk, actor=system_user(), username="owner", role="owner")
    return user


@pytest.fixture
def devs(owner):
    return services.create_group(actor=owner, slug="devs", name="Developers", team="shop")


@pytest.fixture
def wide():
    return services.create_group(actor=system_user(), slug="all")


def grant(team, group, role="viewer", **scope):
    return services.add_group(team.pk, actor=system_user(), group=str(group), role=role, **scope)


def sees(user, team):
    return bool(may(user, Verb.IMAGE_VIEW, team=team))


def guardian_is_right() -> bool:
    with pytest.raises(SystemExit) as stopped:
        call_command("rebuild_grants", "--check", stdout=StringIO())
    return not stopped.value.code


def test_members_have_the_roles_of_a_group_and_lose_them_with_it(team, owner, devs):
    kim = person("kim")
    grant(team, devs)
    assert not sees(kim, team)
    member = services.add_to_group(devs.pk, actor=owner, username="kim")
    assert sees(kim, team)
    assert kim.has_perm("accounts.image_view", team)
    assert guardian_is_right()
    services.remove_from_group(devs.pk, member.pk, actor=owner)
    assert not sees(kim, team)
    assert not User.objects.get(pk=kim.pk).has_perm("accounts.image_view", team)
    services.add_to_group(devs.pk, actor=owner, username="kim")
    services.delete_group(devs.pk, actor=owner)
    assert not sees(kim, team)
    assert guardian_is_right()
    written = AuditEvent.objects.filter(action__in=["grant.revoked", "group.deleted"]).order_by("pk")
    assert [(event.action, event.details) for event in written] == [
        ("grant.revoked", {"user": "group:shop/devs", "role": "viewer", "repositories": "*"}),
        ("group.deleted", {"group": "shop/devs", "members": 1, "grants": 1}),
    ]


def test_group_in_a_group_counts_one_level_deep(team, owner, devs, wide):
    kim = person("kim")
    services.add_to_group(wide.pk, actor=system_user(), username="kim")
    services.add_to_group(devs.pk, actor=owner, group="all")
    grant(team, devs)
    assert sees(kim, team)
    assert set(groups_with(kim)) == {devs, wide}
    assert [row.origin for row in HeldGrant.objects.filter(user=kim)] == ["through group shop/devs, in group all"]
    more = services.create_group(actor=owner, slug="more", team="shop")
    with pytest.raises(Conflict, match="contains groups"):
        services.add_to_group(more.pk, actor=owner, group="shop/devs")
    deep = services.create_group(actor=system_user(), slug="deep")
    with pytest.raises(Conflict, match="is in another group"):
        services.add_to_group(wide.pk, actor=system_user(), group="deep")
    with pytest.raises(Conflict, match="cannot contain itself"):
        services.add_to_group(deep.pk, actor=system_user(), group="deep")
    with pytest.raises(Conflict, match="of its own team"):
        services.add_to_group(deep.pk, actor=system_user(), group="shop/more")
    services.add_to_group(more.pk, actor=owner, group="deep")  # the twin: one level is fine


def test_deeper_rows_written_by_hand_give_nothing(team):
    kim = person("kim")
    first, second, third = (Group.objects.create(slug=name, name=name) for name in ("first", "second", "third"))
    GroupMember.objects.create(group=first, member=second)
    inner = GroupMember.objects.create(group=second, member=third)
    GroupMember.objects.create(group=third, user=kim)
    grant(team, first)
    assert not sees(kim, team)
    inner.delete()
    GroupMember.objects.create(group=second, user=kim)
    assert sees(kim, team)


def test_a_person_counts_once_however_many_ways_lead_to_a_role(team, owner, devs, wide):
    environment = Environment.objects.create(team=team, slug="live", name="live", position=0, prefix="live",
                                             required_approvals=2)  # fmt: skip
    rule = ApprovalRule.objects.create(
        environment=environment, name="devs", required=2, role=Role.objects.get(slug="approver")
    )
    kim = person("kim", team, "approver")
    for group in (devs, wide):
        services.add_to_group(group.pk, actor=system_user(), username="kim")
        grant(team, group, "approver")
    assert HeldGrant.objects.filter(user=kim).count() == 3
    who = queries.people_who(Verb.PROMOTION_APPROVE, team=team, family=None)
    assert [user.username for user in who] == ["kim", "owner"]
    assert rules_of(environment, {kim.pk: "kim"})[0].people == {"kim"}
    assert "needs 2, and only 1 user" in why_not_satisfiable(environment)
    assert queries.teams_with_counts(owner).get(pk=team.pk).people == 2
    assert queries.roles_with_counts().get(slug="approver").holders == 1
    lee = person("lee")
    services.add_to_group(wide.pk, actor=system_user(), username="lee")
    assert why_not_satisfiable(environment) == ""
    assert rules_of(environment, {kim.pk: "kim", lee.pk: "lee"})[0].people == {"kim", "lee"}
    assert queries.roles_with_counts().get(slug="approver").holders == 2
    rule.delete()


def test_approval_rule_of_a_team_counts_members_through_groups(team, wide):
    environment = Environment.objects.create(team=team, slug="live", name="live", position=0, prefix="live")
    other = services.create_team(actor=system_user(), slug="base", name="")
    ApprovalRule.objects.create(environment=environment, name="base", required=1, team=other)
    kim = person("kim")
    services.add_to_group(wide.pk, actor=system_user(), username="kim")
    assert rules_of(environment, {kim.pk: "kim"})[0].people == frozenset()
    grant(other, wide)
    assert rules_of(environment, {kim.pk: "kim"})[0].people == {"kim"}


def test_alerts_reach_people_through_groups(team, devs):
    kim = person("kim")
    grant(team, devs, "creator", repository_pattern="shop/*")
    assert _people_by_pattern([team.pk]).get(team.pk, {}).get("shop/%") is None
    services.add_to_group(devs.pk, actor=system_user(), username="kim")
    assert _people_by_pattern([team.pk])[team.pk]["shop/%"] == ({kim.pk}, {kim.pk})


def test_robot_is_bounded_by_what_its_maker_has_through_a_group(team, owner, devs):
    kim = person("kim")
    machine = robot(team, "creator", maker=kim)
    project(machine.user)
    grant(team, devs, "creator")
    assert not may(machine.user, Verb.IMAGE_CREATE, team=team)
    member = services.add_to_group(devs.pk, actor=owner, username="kim")
    assert may(machine.user, Verb.IMAGE_CREATE, team=team)
    assert machine.user.has_perm("accounts.image_create", team)
    services.remove_from_group(devs.pk, member.pk, actor=owner)
    assert not may(machine.user, Verb.IMAGE_CREATE, team=team)
    assert guardian_is_right()


def test_deactivated_member_has_nothing(team, devs):
    kim = person("kim")
    services.add_to_group(devs.pk, actor=system_user(), username="kim")
    grant(team, devs)
    assert sees(kim, team)
    services.deactivate(kim.pk, actor=system_user())
    kim.refresh_from_db()
    assert not sees(kim, team)
    assert not queries.people_who(Verb.IMAGE_VIEW, team=team, family=None).filter(pk=kim.pk).exists()


def test_expired_grant_of_a_group_gives_nothing(team, devs):
    kim = person("kim")
    services.add_to_group(devs.pk, actor=system_user(), username="kim")
    row = grant(team, devs, expires_at=timezone.now() + timedelta(hours=1))
    assert sees(kim, team)
    RoleGrant.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not sees(kim, team)


def test_last_owner_in_person_stays_and_groups_do_not_replace_them(team, owner, devs):
    person("kim")
    services.add_to_group(devs.pk, actor=system_user(), username="kim")
    shared = grant(team, devs, "owner")
    own = RoleGrant.objects.get(user=owner, role__slug="owner")
    with pytest.raises(Conflict, match="last owner of shop in person"):
        services.revoke_grant(own.pk, actor=owner)
    services.revoke_grant(shared.pk, actor=owner)  # never the last one in person
    services.add_member(team.pk, actor=owner, username="kim", role="owner")
    services.revoke_grant(own.pk, actor=system_user())


def test_nobody_gives_more_than_they_have_through_a_group(team, devs, wide):
    helper = Role.objects.create(slug="helper", name="x", verbs=[Verb.TEAM_MANAGE.value, Verb.IMAGE_VIEW.value])
    lead, _ = person("lead", team, "helper"), person("kim")
    grant(team, devs, "owner")
    with pytest.raises(NotPermitted, match="You can only grant permissions that you have"):
        services.add_to_group(devs.pk, actor=lead, username="lead")
    readers = services.create_group(actor=lead, slug="readers", team="shop")
    services.add_group(team.pk, actor=lead, group="shop/readers", role="viewer")
    services.add_to_group(readers.pk, actor=lead, username="kim")  # the twin
    with pytest.raises(NotPermitted, match="You can only grant"):
        services.add_group(team.pk, actor=lead, group="shop/readers", role="owner")
    # What a group gives through another one that contains it counts too.
    services.add_to_group(devs.pk, actor=system_user(), group="shop/readers")
    with pytest.raises(NotPermitted, match="You can only grant"):
        services.add_to_group(readers.pk, actor=lead, username="lead")
    with pytest.raises(NotPermitted, match="Only admins can manage groups of the installation"):
        services.add_to_group(wide.pk, actor=lead, username="lead")
    assert helper.slug == "helper"


def test_groups_of_a_team_are_hidden_from_others_and_used_nowhere_else(team, owner, devs):
    other = services.create_team(actor=system_user(), slug="base", name="")
    boss, outsider = person("boss", other, "owner"), person("outsider")
    assert devs not in queries.groups_visible_to(outsider)
    assert devs in queries.groups_visible_to(owner)
    for act in (
        lambda actor: services.rename_group(devs.pk, actor=actor, name="x"),
        lambda actor: services.delete_group(devs.pk, actor=actor),
        lambda actor: services.add_to_group(devs.pk, actor=actor, username="boss"),
        lambda actor: services.create_group(actor=actor, slug="mine", team="shop"),
    ):
        with pytest.raises(NotFound):
            act(boss)
    with pytest.raises(NotFound, match="No group shop/devs found"):
        services.add_group(other.pk, actor=boss, group="shop/devs", role="viewer")
    grant(team, devs)  # the twin


def test_viewer_of_the_team_sees_its_groups_and_changes_none(team, devs):
    viewer = person("viewer", team, "viewer")
    assert devs in queries.groups_visible_to(viewer)
    with pytest.raises(NotPermitted):
        services.add_to_group(devs.pk, actor=viewer, username="viewer")


def test_members_of_a_group_of_sign_in_are_not_changed_by_hand(wide):
    synced = services.create_group(actor=system_user(), slug="synced", source="sso")
    person("kim")
    with pytest.raises(Conflict, match="come from sign-in"):
        services.add_to_group(synced.pk, actor=system_user(), username="kim")
    services.add_to_group(wide.pk, actor=system_user(), username="kim")


def test_only_admins_make_groups_of_sign_in_and_of_the_installation(team, owner):
    with pytest.raises(NotPermitted, match="Only admins"):
        services.create_group(actor=owner, slug="x", team="shop", source="sso")
    with pytest.raises(NotPermitted, match="Only admins"):
        services.create_group(actor=owner, slug="x")
    services.create_group(actor=owner, slug="x", team="shop")


@pytest.mark.parametrize("slug", ["", "Devs", "a b", "a/b", "x" * 61, "-a"])
def test_bad_names_are_refused(slug):
    with pytest.raises(Malformed, match="Enter a short name"):
        services.create_group(actor=system_user(), slug=slug)


def test_names_are_once_per_place(devs):
    with pytest.raises(Conflict, match=r"Group shop/devs already exists"):
        services.create_group(actor=system_user(), slug="devs", team="shop")
    services.create_group(actor=system_user(), slug="devs")
    with pytest.raises(Conflict, match=r"Group devs already exists"):
        services.create_group(actor=system_user(), slug="devs")


def test_robots_and_unknown_accounts_are_no_members(team, wide):
    machine = robot(team)
    for name in (machine.user.username, "nobody"):
        with pytest.raises(NotFound, match="No active account"):
            services.add_to_group(wide.pk, actor=system_user(), username=name)
    person("kim")
    services.add_to_group(wide.pk, actor=system_user(), username="kim")
    with pytest.raises(Conflict, match="already in group"):
        services.add_to_group(wide.pk, actor=system_user(), username="kim")
    assert [user.username for user in people_in([wide.pk])] == ["kim"]


def test_database_holds_one_kind_of_holder_and_member(team, devs):
    kim = person("kim")
    role = Role.objects.get(slug="viewer")
    for row in (
        RoleGrant(team=team, role=role),
        RoleGrant(team=team, role=role, user=kim, group=devs),
        GroupMember(group=devs),
        GroupMember(group=devs, user=kim, member=devs),
        GroupMember(group=devs, member=devs),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save()
    GroupMember(group=devs, user=kim).save()


def test_answer_names_the_group(team, devs):
    person("kim")
    grant(team, devs)
    services.add_to_group(devs.pk, actor=system_user(), username="kim")
    answer = explain("kim", Verb.IMAGE_VIEW, team=team)
    assert answer.is_allowed
    assert any("through group shop/devs" in step.text for step in answer.steps)


def test_changes_are_recorded_once_with_their_group(team, owner, devs):
    person("kim")
    services.rename_group(devs.pk, actor=owner, name="All developers")
    services.rename_group(devs.pk, actor=owner, name="All developers")
    member = services.add_to_group(devs.pk, actor=owner, username="kim")
    services.remove_from_group(devs.pk, member.pk, actor=owner)
    written = AuditEvent.objects.filter(action__startswith="group.").order_by("pk")
    assert [(event.action, event.team, event.details) for event in written] == [
        ("group.created", team, {"group": "shop/devs", "source": "manual", "after": {"name": "Developers"}}),
        (
            "group.changed",
            team,
            {"group": "shop/devs", "before": {"name": "Developers"}, "after": {"name": "All developers"}},
        ),
        ("group.member_added", team, {"group": "shop/devs", "user": "kim", "member": "", "source": "manual"}),
        ("group.member_removed", team, {"group": "shop/devs", "user": "kim", "member": "", "source": "manual"}),
    ]


def test_team_with_a_group_is_not_deleted(team, devs):
    with pytest.raises(Conflict, match="still has 1 group"):
        services.delete_team(team.pk, actor=system_user())
    services.delete_group(devs.pk, actor=system_user())
    services.delete_team(team.pk, actor=system_user())
