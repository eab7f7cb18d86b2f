"""Rule sets: who may save, what is refused, revisions, and how levels combine."""

from __future__ import annotations

import pytest

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import Malformed, NotFound, NotPermitted, PolicyBlocked, StaleVersion
from lifecycle.events import PolicyChanged, collected
from lifecycle.policies import services
from lifecycle.policies.access import scope_for, why_not_manage
from lifecycle.policies.models import PolicyRevision
from lifecycle.policies.queries import effective_rules, newest, revisions_visible_to, rule_set_of
from lifecycle.policies.types import Scope
from lifecycle.policy.rulesets import Mode, Point
from tests.factories.policies import ENFORCE, place, rule, save

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(db):
    return User.objects.create(username="admin", is_superuser=True)


def test_saved_rules_are_a_revision_with_an_event_in_the_trail_and_on_the_bus(dock):
    with collected(PolicyChanged) as published:
        made = services.save_policy(Scope(dock.team), [rule("r")], actor=dock.owner, seen=0, note="first")
    assert (made.number, made.author, made.note) == (1, dock.owner, "first")
    assert published == [PolicyChanged(dock.team.pk, None)]
    event = AuditEvent.objects.get(action="policy.saved")
    assert (event.team, event.reason) == (dock.team, "first")
    assert event.details == {"scope": "team:shop", "revision": 1, "digest": made.digest, "changes": ["+ r"]}
    stored = rule_set_of(Scope(dock.team))
    assert (stored.number, [item.key for item in stored.rules], stored.etag) == (1, ["r"], '"team:shop.1"')


def test_same_rules_again_make_no_revision(dock):
    services.save_policy(Scope(dock.team), [rule()], actor=dock.owner, seen=0)
    assert services.save_policy(Scope(dock.team), [rule()], actor=dock.owner, seen=1) is None
    assert PolicyRevision.objects.count() == 1


def test_second_of_two_authors_is_refused_and_loses_nothing_of_the_first(dock):
    services.save_policy(Scope(dock.team), [rule()], actor=dock.owner, seen=0)
    with pytest.raises(StaleVersion, match="revision 1"):
        services.save_policy(Scope(dock.team), [], actor=dock.owner, seen=0)
    assert len(rule_set_of(Scope(dock.team)).rules) == 1
    services.save_policy(Scope(dock.team), [], actor=dock.owner, seen=1)
    assert rule_set_of(Scope(dock.team)).number == 2


def test_revision_never_changes(dock):
    made = services.save_policy(Scope(dock.team), [rule()], actor=dock.owner, seen=0)
    made.note = "changed"
    with pytest.raises(TypeError):
        made.save()


@pytest.mark.parametrize("scope_name", ["site", "team:shop", "team:shop:staging"])
def test_only_who_manages_the_place_saves(scope_name, dock, admin):
    scope = scope_for(dock.owner, scope_name)
    may = admin if scope_name == "site" else dock.owner
    for other in {dock.requester, dock.approver, dock.owner, admin} - {may}:
        assert why_not_manage(other, scope)
        with pytest.raises(NotPermitted):
            services.save_policy(scope, [rule()], actor=other, seen=0)
    assert not PolicyRevision.objects.exists()
    assert services.save_policy(scope, [rule()], actor=may, seen=0)


@pytest.mark.parametrize("name", ["", "team:", "team:base", "team:shop:qa", "shop", "site:x"])
def test_absent_and_hidden_scopes_look_the_same(name, dock):
    for reader in (dock.outsider, dock.owner):
        with pytest.raises(NotFound):
            scope_for(reader, name)
    with pytest.raises(NotFound):
        scope_for(dock.outsider, "team:shop")
    assert scope_for(dock.owner, "team:shop").team == dock.team


def test_new_rule_starts_in_observe_and_is_raised_later(dock):
    enforced = rule(modes=ENFORCE)
    with pytest.raises(PolicyBlocked) as refused:
        services.save_policy(Scope(dock.team), [enforced], actor=dock.owner, seen=0)
    assert "r is new" in refused.value.details["reasons"][0]
    services.save_policy(Scope(dock.team), [rule()], actor=dock.owner, seen=0)
    services.save_policy(Scope(dock.team), [enforced], actor=dock.owner, seen=1)
    (stored,) = rule_set_of(Scope(dock.team)).rules
    assert stored.mode(Point.REQUEST) is Mode.ENFORCE


def test_looser_rule_below_is_refused_and_a_stricter_one_is_not(dock, admin):
    save(Scope(), rule(severity="high", modes=ENFORCE), actor=admin)
    with pytest.raises(PolicyBlocked) as refused:
        services.save_policy(place(dock.staging), [rule(severity="critical", modes={})], actor=dock.owner, seen=0)
    assert "looser than the rule of the site" in refused.value.details["reasons"][0]
    with pytest.raises(PolicyBlocked, match="observe"):
        services.save_policy(place(dock.staging), [rule(severity="low", modes=ENFORCE)], actor=dock.owner, seen=0)


def test_levels_combine_as_the_strictest(dock, admin):
    save(Scope(), rule(severity="high", older_than_days=30), rule("sbom", "sbom"), actor=admin)
    save(Scope(dock.team), rule(severity="medium", older_than_days=30), actor=dock.owner)
    save(place(dock.staging), rule(severity="medium", older_than_days=3), actor=dock.owner)
    here = effective_rules(dock.team, dock.staging)
    assert [item.key for item in here.rules] == ["r", "sbom"]
    assert here.rules[0].parameters["severity"] == "medium"
    assert here.rules[0].parameters["older_than_days"] == 3
    assert [(name, number) for name, number, _ in here.revisions] == [
        ("site", 1), ("team:shop", 1), ("team:shop:staging", 1)
    ]  # fmt: skip
    there = effective_rules(dock.team, dock.dev)
    assert there.rules[0].parameters["older_than_days"] == 30


def test_upper_set_that_gets_stricter_later_wins_over_the_lower_one(dock, admin):
    save(Scope(dock.team), rule(severity="high"), actor=dock.owner)
    save(Scope(), rule(severity="low"), actor=admin)
    assert effective_rules(dock.team, None).rules[0].parameters["severity"] == "low"


def test_too_long_note_and_wrong_rules_are_refused(dock):
    with pytest.raises(Malformed):
        services.save_policy(Scope(dock.team), [rule()], actor=dock.owner, seen=0, note="x" * 2001)
    with pytest.raises(Malformed):
        services.save_policy(Scope(dock.team), [rule(kind="x")], actor=dock.owner, seen=0)


def test_rule_sets_of_other_teams_are_not_listed(dock, admin):
    save(Scope(), rule(), actor=admin)
    save(Scope(dock.team), rule(), actor=dock.owner)
    save(place(dock.dev), rule(), actor=dock.owner)
    assert {str(row.policy) for row in newest(revisions_visible_to(dock.owner))} == {
        "site",
        "team:shop",
        "team:shop:dev",
    }
    assert {str(row.policy) for row in newest(revisions_visible_to(dock.outsider))} == {"site"}
