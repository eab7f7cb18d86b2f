"""Each action on teams, robots, roles, accounts and registries: who may do it, to which row, and to no other row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.models import ApiToken, Membership, Robot, Role, Team, User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant, TotpSecret
from lifecycle.authority.services import registries
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.registry.models import Registry
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> SimpleNamespace:
    """Two teams that have the same things, so that a change of the wrong row shows."""
    system = system_user()
    teams = [services.create_team(actor=system, slug=slug, name=slug) for slug in ("shop", "base")]
    people = {name: User.objects.create(username=name, email=f"{name}@example.com")
              for name in ("outsider", "viewer", "owner", "member", "other")}  # fmt: skip
    people["admin"] = User.objects.create(username="admin", is_superuser=True)
    people["second"] = User.objects.create(username="second", is_superuser=True)
    people["idle"] = User.objects.create(username="idle", is_active=False)
    TotpSecret.objects.create(user=people["other"], last_step=0)
    grants, robots, tokens = [], [], []
    for team in teams:
        services.add_member(team.pk, actor=system, username="owner", role="owner")
        grants.append(services.add_member(team.pk, actor=system, username="member", role="viewer"))
        robots.append(services.create_robot(team.pk, actor=people["owner"], name="ci"))
        tokens.append(services.create_robot_token(robots[-1].pk, actor=people["owner"], name="t")[0])
    services.add_member(teams[0].pk, actor=system, username="viewer", role="viewer")
    roles = [Role.objects.create(slug=slug, name=slug, verbs=["image.view"]) for slug in ("reader", "reader-two")]
    added = [Registry.objects.create(name=name, endpoint=f"https://{name}.example.com", is_added=True)
             for name in ("harbor", "quay")]  # fmt: skip
    empty = services.create_team(actor=system, slug="empty", name="Empty")
    return SimpleNamespace(teams=teams, people=people, grants=grants, robots=robots, tokens=tokens, roles=roles,
                           registries=added, empty=empty, team=teams[0])  # fmt: skip


@dataclass(frozen=True)
class Act:
    """An action, who may do it (besides admins, if `admin`), and what a request for an absent row is told."""

    do: Callable[[Any, User, int], object]  # (world, actor, added to the id of the row)
    by: str | None = "owner"
    admin: bool = True
    outsider: type[Exception] = NotFound
    has_row: bool = True


ONLY_ADMINS = {"by": None, "outsider": NotPermitted}
ACTS = {
    "create_team": Act(lambda w, who, _: services.create_team(actor=who, slug="new", name="New"), has_row=False,
                       **ONLY_ADMINS),
    "delete_team": Act(lambda w, who, n: services.delete_team(w.empty.pk + n, actor=who), None),
    "rename_team": Act(lambda w, who, n: services.rename_team(w.team.pk + n, actor=who, name="Other")),
    "add_member": Act(lambda w, who, n: services.add_member(w.team.pk + n, actor=who, username="other", role="viewer")),
    "revoke_grant": Act(lambda w, who, n: services.revoke_grant(w.grants[0].pk + n, actor=who)),
    "revoke_grant_in": Act(
        lambda w, who, n: services.revoke_grant(w.grants[0].pk, actor=who, team_id=w.team.pk + n)),
    "create_robot": Act(lambda w, who, n: services.create_robot(w.team.pk + n, actor=who, name="cd")),
    "grant_robot": Act(lambda w, who, n: services.grant_robot(w.robots[0].pk + n, actor=who, role="viewer")),
    "robot_token": Act(lambda w, who, n: services.create_robot_token(w.robots[0].pk + n, actor=who, name="u")),
    "take_over_robot": Act(lambda w, who, n: services.take_over_robot(w.robots[0].pk + n, actor=who), None),
    "revoke_robot_token": Act(
        lambda w, who, n: services.revoke_robot_token(w.robots[0].pk + n, w.tokens[0].pk, actor=who)),
    "revoke_no_robot_token": Act(
        lambda w, who, n: services.revoke_robot_token(w.robots[0].pk, w.tokens[0].pk + n, actor=who)),
    "retire_robot": Act(lambda w, who, n: services.retire_robot(w.robots[0].pk + n, actor=who)),
    "create_role": Act(lambda w, who, _: services.create_role(actor=who, slug="x", name="X", verbs=["image.view"]),
                       has_row=False, **ONLY_ADMINS),
    "change_role": Act(lambda w, who, n: services.change_role("reader" + "x" * n, actor=who, name="R", verbs=[
        "image.view", "image.scan"]), **ONLY_ADMINS),
    "delete_role": Act(lambda w, who, n: services.delete_role("reader" + "x" * n, actor=who), **ONLY_ADMINS),
    "create_person": Act(lambda w, who, _: services.create_person(actor=who, username="new"), has_row=False,
                         **ONLY_ADMINS),
    "reset_password": Act(lambda w, who, n: services.reset_password(w.people["other"].pk + n, actor=who),
                          **ONLY_ADMINS),
    "set_admin": Act(lambda w, who, n: services.set_admin(w.people["other"].pk + n, actor=who, is_admin=True),
                     **ONLY_ADMINS),
    "unset_admin": Act(lambda w, who, n: services.set_admin(w.people["second"].pk + n, actor=who, is_admin=False),
                       **ONLY_ADMINS),
    "deactivate": Act(lambda w, who, n: services.deactivate(w.people["other"].pk + n, actor=who), **ONLY_ADMINS),
    "reactivate": Act(lambda w, who, n: services.reactivate(w.people["idle"].pk + n, actor=who), **ONLY_ADMINS),
    "reset_factors": Act(lambda w, who, n: services.reset_factors(w.people["other"].pk + n, actor=who), **ONLY_ADMINS),
    "verify_mail": Act(lambda w, who, n: services.verify_mail(w.people["other"].pk + n, actor=who), **ONLY_ADMINS),
    "add_registry": Act(lambda w, who, _: registries.add_registry(actor=who, name="new", endpoint="new.example.com"),
                        has_row=False, **ONLY_ADMINS),
    "change_registry": Act(lambda w, who, n: registries.change_registry(w.registries[0].pk + n, actor=who, name="h2"),
                           **ONLY_ADMINS),
    "remove_registry": Act(lambda w, who, n: registries.remove_registry(w.registries[0].pk + n, actor=who),
                           **ONLY_ADMINS),
}  # fmt: skip
ABSENT = 1000
TABLES = (User, Team, Membership, Robot, Role, RoleGrant, ApiToken, Registry, TotpSecret)


def rows() -> dict[tuple[type, int], dict[str, Any]]:
    return {(table, row["id"]): row for table in TABLES for row in table.objects.values()}


@pytest.mark.parametrize("name", ACTS)
def test_action_is_for_those_who_may_and_changes_only_its_row(name, world):
    act, people = ACTS[name], world.people
    before, events = rows(), AuditEvent.objects.count()
    refusals = {"outsider": act.outsider, "viewer": NotPermitted}
    if act.by is None and name != "take_over_robot":
        refusals["owner"] = NotPermitted
    if name == "delete_team":
        refusals |= {"viewer": NotFound, "owner": NotFound}
    for who, error in refusals.items():
        with pytest.raises(error):
            act.do(world, people[who], 0)
    if act.has_row:
        with pytest.raises(NotFound):
            act.do(world, people["admin"], ABSENT)
    assert (rows(), AuditEvent.objects.count()) == (before, events)
    actor = people["admin"] if act.by is None else people[act.by]
    act.do(world, actor, 0)
    assert AuditEvent.objects.count() > events
    assert AuditEvent.objects.latest("pk").actor == actor
    after = rows()
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    others = {(Team, world.teams[1].pk), (RoleGrant, world.grants[1].pk), (Robot, world.robots[1].pk),
              (User, world.robots[1].user_id), (ApiToken, world.tokens[1].pk), (Role, world.roles[1].pk),
              (Registry, world.registries[1].pk), (User, people["member"].pk), (User, people["viewer"].pk)}  # fmt: skip
    assert changed, "the allowed action does something"
    assert not changed & others


def test_table_has_every_action_on_these_rows():
    left = {"change_profile", "note_password_changed", "use_link", "link_for", "create_api_token",
            "revoke_api_token", "create_registry_sign_in", "create_environment", "move_repositories",
            "why_not_taken_over", "create_robot_token"}  # fmt: skip
    # On one's own factors and sessions, and their limits: test_second_factors.py, test_sessions.py.
    left |= {"add_passkey", "add_totp", "make_recovery_codes", "remove_passkey", "remove_totp", "note_confirmed",
             "note_recovery_code", "note_refused", "why_not_change_factors", "why_not_remove_factor", "security_now",
             "change_security", "end_session", "end_sessions_of", "end_other_sessions"}  # fmt: skip
    # Who may do them has tests of its own: test_groups.py, test_access_requests.py.
    left |= {"add_group", "add_to_group", "create_group", "delete_group", "remove_from_group", "rename_group",
             "ask_for_access", "decline_access", "grant_access", "withdraw_access_request"}  # fmt: skip
    assert set(services.__all__) - left <= set(ACTS)


@pytest.mark.parametrize("who", ["owner", "admin"])
def test_admins_and_owners_may_do_what_owners_may(who, world):
    for name in ("rename_team", "add_member", "create_robot", "grant_robot", "robot_token"):
        ACTS[name].do(world, world.people[who], 0)


@pytest.mark.parametrize("slug", ["a" * 60, "a-b-1"])
def test_names_at_their_limits(slug, world):
    admin = world.people["admin"]
    assert services.create_team(actor=admin, slug=slug, name=" ").name == slug
    assert services.rename_team(world.team.pk, actor=admin, name="x" * 120).name == "x" * 120
    assert services.rename_team(world.team.pk, actor=admin, name=" a  b ").name == "a b"
    events = AuditEvent.objects.count()
    assert services.rename_team(world.team.pk, actor=admin, name="a b").name == "a b"
    assert AuditEvent.objects.count() == events
    for name in ("x" * 121, "a\0b"):
        with pytest.raises(Exception, match="up to 120 characters"):
            services.rename_team(world.team.pk, actor=admin, name=name)


def test_team_with_contents_is_not_deleted_and_each_kind_is_named(world):
    dock.repository("shop/api", world.team)
    for actor in (world.people["admin"], system_user()):
        with pytest.raises(Exception, match="still has 1 repository, 1 robot"):
            services.delete_team(world.team.pk, actor=actor)
    dock.repository("shop/web", world.team)
    with pytest.raises(Exception, match="still has 2 repositories, 1 robot"):
        services.delete_team(world.team.pk, actor=world.people["admin"])
