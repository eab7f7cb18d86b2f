"""Four eyes are two people: who can act as a robot, or has two accounts, counts once."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Identity, User
from lifecycle.authority.identity import makers_of, why_not_second
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import IllegalTransition, NotPermitted
from lifecycle.environments.models import Environment
from lifecycle.keyless.models import TrustRule
from lifecycle.promotion import services
from lifecycle.promotion.approval_rules import why_not_satisfiable
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import decidable_by, facts_of
from lifecycle.quarantine import services as quarantines
from lifecycle.quarantine.types import SecondPersonNeeded
from tests.factories import people
from tests.factories.shop import make_request

pytestmark = pytest.mark.django_db


def rule_by(maker: User, robot: Any, *, is_ended: bool) -> TrustRule:
    return TrustRule.objects.create(
        robot=robot, name="main", issuer="https://issuer.example.com", audience="x", claims={"sub": "x"},
        made_by=maker, ended_at=timezone.now() if is_ended else None,
    )  # fmt: skip


@pytest.mark.parametrize("is_ended", [False, True], ids=["live", "ended"])
def test_maker_of_a_trust_rule_is_no_second_person_for_the_robot(dock: Any, is_ended: bool) -> None:
    robot = people.robot(dock.team, "creator")
    dock.requester = robot.user
    request = make_request(dock)
    assert decidable_by(dock.approver).filter(pk=request.pk).exists()
    rule_by(dock.approver, robot, is_ended=is_ended)
    assert makers_of([robot.user.pk])[robot.user.pk] >= {dock.approver.pk}
    assert not decidable_by(dock.approver).filter(pk=request.pk).exists()
    assert "can act as the robot" in why_not_second(dock.approver, [robot.user.pk])
    with pytest.raises(NotPermitted):
        services.approve(request.pk, actor=dock.approver)
    services.approve(request.pk, actor=dock.second)
    assert PromotionRequest.objects.get(pk=request.pk).state == "ready"


def test_maker_of_a_trust_rule_does_not_lift_what_the_robot_quarantined(dock: Any) -> None:
    guards = [people.person(name, dock.team, "security") for name in ("guard", "other-guard")]
    robot = people.robot(dock.team, "security")
    row = quarantines.quarantine(dock.image.digest, actor=robot.user, reason="contains a backdoor")
    rule_by(guards[0], robot, is_ended=True)
    with pytest.raises(SecondPersonNeeded):
        quarantines.release(row.pk, actor=guards[0])
    with pytest.raises(IllegalTransition, match="Ask for the release first"):  # the other one is a second person
        quarantines.release(row.pk, actor=guards[1])


@pytest.mark.parametrize("shared", ["identity", "mail of providers", "mail", "nothing"])
def test_two_accounts_of_one_person_approve_once(dock: Any, request_: PromotionRequest, shared: str) -> None:
    first, second = dock.approver, dock.second
    if shared == "identity":
        give_identity(first, "kim", ended_at=timezone.now())  # also after it was unlinked
        give_identity(second, "kim")
    elif shared == "mail of providers":
        give_identity(first, "kim", verified_mail="kim@example.com")
        give_identity(second, "kim-too", verified_mail="kim@example.com")
    elif shared == "mail":
        give_identity(first, "kim", verified_mail="kim@example.com")
        User.objects.filter(pk=second.pk).update(email="Kim@example.com", email_verified_at=timezone.now())
    else:
        give_identity(first, "kim")
        give_identity(second, "lee")
    Environment.objects.filter(pk=dock.staging.pk).update(required_approvals=2)
    why = why_not_satisfiable(Environment.objects.get(pk=dock.staging.pk))
    for voter in (first, second):
        services.approve(request_.pk, actor=voter)
    is_one = shared != "nothing"
    facts = facts_of(PromotionRequest.objects.get(pk=request_.pk))
    assert facts.approvers == (["approver"] if is_one else ["approver", "second"])
    assert any("share a verified mail or a sign-in identity" in words for words in facts.uncounted) is is_one
    assert PromotionRequest.objects.get(pk=request_.pk).state == ("open" if is_one else "ready")
    assert why == ""  # the owner can approve too
    RoleGrant.objects.filter(user=dock.owner).delete()
    assert bool(why_not_satisfiable(Environment.objects.get(pk=dock.staging.pk))) is is_one


def give_identity(user: User, subject: str, **more: Any) -> None:
    Identity.objects.create(user=user, issuer="https://issuer.example.com", subject=subject, **more)
