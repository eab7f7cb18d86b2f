"""Waivers: two people, a narrow scope, an end, and a fix that closes them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from freezegun import freeze_time

from accounts.models import Role
from lifecycle.advisories.models import Match
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted
from lifecycle.policies import waivers
from lifecycle.policies.models import Waiver
from lifecycle.policies.queries import waivers_visible_to
from lifecycle.policies.types import Scope
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.people import robot as new_robot
from tests.factories.policies import rule, save, waiver

pytestmark = pytest.mark.django_db


@pytest.fixture
def guard(dock):
    """A member of the security role, with a rule to waive."""
    save(Scope(dock.team), rule(severity="high"), rule("fixed", "sbom") | {"waivable": False}, actor=dock.owner)
    return person("guard", dock.team, "security")


def ask(dock, guard, **more):
    given = {"repository": dock.repository, "reason": "because", "ticket": "OPS-1",
             "until": clock.now() + timedelta(days=7)}  # fmt: skip
    key = more.pop("rule", "r")
    return waivers.request_waiver(dock.team, key, actor=guard, **given | more)


def test_waiver_takes_two_people(dock, guard):
    made = ask(dock, guard)
    assert (made.state, str(made)) == ("requested", f"WV-{made.pk}")
    with pytest.raises(NotPermitted, match="Someone else"):
        waivers.approve_waiver(made.pk, actor=guard)
    approved = waivers.approve_waiver(made.pk, actor=dock.approver, reason="read")
    assert (approved.state, approved.decided_by, approved.decision) == ("approved", dock.approver, "read")
    told = AuditEvent.objects.filter(action__startswith="waiver.").order_by("pk")
    assert list(told.values_list("action", flat=True)) == ["waiver.requested", "waiver.approved"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"repository": None}, Malformed),
        ({"reason": " "}, Malformed),
        ({"ticket": ""}, Malformed),
        ({"ticket": "x" * 301}, Malformed),
        ({"days": 0}, Malformed),
        ({"days": 91}, Malformed),
        ({"rule": "other"}, Malformed),
        ({"rule": "fixed"}, Malformed),
        ({"package": "debian/openssl"}, Malformed),
        ({"digest": "sha256:" + "f" * 64}, Malformed),
    ],
)
def test_waiver_that_is_too_wide_or_says_too_little_is_refused(change, error, dock, guard):
    given = dict(change)
    if "days" in given:
        given["until"] = clock.now() + timedelta(days=given.pop("days"))
    with pytest.raises(error):
        ask(dock, guard, **given)
    assert not Waiver.objects.exists()


def test_scope_of_another_team_is_refused(dock, guard):
    with pytest.raises(Malformed, match="of this team"):
        ask(dock, guard, repository=rows.repository("base/python"))
    assert ask(dock, guard, environment=dock.staging, digest=dock.image.digest)


def test_only_who_may_request_and_approve_do(dock, guard):
    with pytest.raises(NotPermitted):
        ask(dock, dock.requester)
    made = ask(dock, guard)
    with pytest.raises(NotFound):
        waivers.approve_waiver(made.pk, actor=dock.outsider)
    with pytest.raises(NotPermitted):
        waivers.approve_waiver(made.pk, actor=dock.deployer)
    robot = new_robot(dock.team, "approver")
    with pytest.raises(NotPermitted, match="Only people"):
        waivers.approve_waiver(made.pk, actor=robot.user)
    assert Waiver.objects.get().state == "requested"


def test_account_of_the_same_person_does_not_count_as_the_second_one(dock, guard):
    made = ask(dock, guard)
    now = clock.now()
    for user in (guard, dock.approver):
        user.email, user.email_verified_at = "Kim@example.com", now
        user.save()
    with pytest.raises(NotPermitted, match="one person"):
        waivers.approve_waiver(made.pk, actor=dock.approver)
    assert waivers.approve_waiver(made.pk, actor=dock.second).state == "approved"


def test_same_waiver_is_not_asked_for_twice(dock, guard):
    made = ask(dock, guard)
    with pytest.raises(Conflict, match=str(made)):
        ask(dock, guard)
    waivers.reject_waiver(made.pk, actor=dock.approver, reason="no")
    assert ask(dock, guard).pk != made.pk


def test_rejection_needs_a_reason_and_is_final(dock, guard):
    made = ask(dock, guard)
    with pytest.raises(Malformed):
        waivers.reject_waiver(made.pk, actor=dock.approver, reason=" ")
    waivers.reject_waiver(made.pk, actor=dock.approver, reason="no")
    with pytest.raises(IllegalTransition):
        waivers.approve_waiver(made.pk, actor=dock.second)


def test_requester_and_approvers_can_revoke(dock, guard):
    for who in (guard, dock.approver):
        made = waiver(dock.team, "r", by=guard, approver=dock.second, repository=dock.repository)
        with pytest.raises(NotPermitted):
            waivers.revoke_waiver(made.pk, actor=dock.requester)
        assert waivers.revoke_waiver(made.pk, actor=who, reason="done").state == "revoked"
        with pytest.raises(IllegalTransition):
            waivers.revoke_waiver(made.pk, actor=who)


def test_waiver_expires_at_its_end_also_unapproved(dock, guard):
    waiver(dock.team, "r", by=guard, approver=dock.approver, repository=dock.repository)
    ask(dock, guard, environment=dock.dev)
    with freeze_time(clock.now() + timedelta(days=8)):
        assert waivers.end_waivers() == 2
        assert waivers.end_waivers() == 0
    assert {row.state for row in Waiver.objects.all()} == {"expired"}
    assert AuditEvent.objects.filter(action="waiver.expired").count() == 2


def test_end_is_announced_14_3_and_1_days_before_once_each(dock, guard):
    made = waiver(dock.team, "r", by=guard, approver=dock.approver, repository=dock.repository, days=20)
    start = clock.now()
    for day in range(20):
        with freeze_time(start + timedelta(days=day, minutes=1)):
            waivers.end_waivers()
            waivers.end_waivers()
    told = AuditEvent.objects.filter(action="waiver.ending")
    assert told.count() == 3
    made.refresh_from_db()
    assert (made.warned_days, made.state) == (1, "approved")


def test_waiver_closes_when_a_fix_ships(dock, guard):
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    made = waiver(dock.team, "r", by=guard, approver=dock.approver, repository=dock.repository,
                  advisory="CVE-2026-1", package="openssl")  # fmt: skip
    assert waivers.end_waivers() == 1  # only the warning
    Match.objects.update(fixed_version="3.1")
    assert waivers.end_waivers() == 1
    made.refresh_from_db()
    assert (made.state, made.decision) == ("closed", "A fix is available: 3.1.")
    assert AuditEvent.objects.get(action="waiver.closed").reason == "A fix is available: 3.1."


def test_waiver_that_was_given_although_there_was_a_fix_stays(dock, guard):
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package, fixed="3.1")
    made = waiver(dock.team, "r", by=guard, approver=dock.approver, repository=dock.repository, advisory="CVE-2026-1")
    waivers.end_waivers()
    made.refresh_from_db()
    assert made.state == "approved"


def test_waivers_show_to_those_who_see_the_place(dock, guard):
    waiver(dock.team, "r", by=guard, repository=dock.repository)
    waiver(dock.team, "r", by=guard, environment=dock.staging)
    assert waivers_visible_to(dock.requester).count() == 2
    assert waivers_visible_to(dock.outsider).count() == 0
    narrow = person("narrow")
    RoleGrant.objects.create(user=narrow, team=dock.team, role=Role.objects.get(slug="viewer"),
                             repository_pattern="shop/other")  # fmt: skip
    assert [row.environment for row in waivers_visible_to(narrow)] == [dock.staging]
