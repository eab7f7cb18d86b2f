"""Who is told what about promotions, and who never is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Role, User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import PromotionSuperseded
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.notices.models import InboxItem, Notice
from lifecycle.notices.queries import inbox_of, unread_count
from lifecycle.notices.telling import tell
from lifecycle.notices.types import Telling
from lifecycle.promotion import automation, breakglass, services, telling, threads, verification
from lifecycle.promotion.models import PromotionRequest, ReviewDebt
from tests.clients import Caller
from tests.factories.people import person, robot

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def told(topic: str) -> set[str]:
    """Return who has a notice of this topic in their list."""
    return set(InboxItem.objects.filter(notice__topic=topic).values_list("person__username", flat=True))


def test_those_who_can_approve_are_asked(dock: Any, request_: Any) -> None:
    assert told("promotion.asked") == {"approver", "second", "owner"}
    notice = Notice.objects.get()
    assert (notice.subject, notice.text) == (
        f"{request_}: shop/api:1.0 to staging",
        "requester asks for approval. Reason: release",
    )
    assert (notice.thread, notice.link) == (f"promotionrequest-{request_.pk}", f"/promotions/{request_.pk}/")
    assert (notice.actor_name, notice.facts["digest"]) == ("requester", dock.image.digest)


def test_who_cannot_see_the_image_is_never_told(dock: Any) -> None:
    """Not even who can approve, or is named: the right to see decides, in the environment as well."""
    blind = person("blind")
    role = Role.objects.create(slug="stamp", name="Stamp", verbs=["promotion.approve"])
    RoleGrant.objects.create(user=blind, team=dock.team, role=role)
    elsewhere = person("elsewhere")
    viewer = Role.objects.get(slug="viewer")
    RoleGrant.objects.create(user=elsewhere, team=dock.team, role=viewer, environment=dock.dev)
    admin = User.objects.create(username="admin", is_superuser=True)
    gone = person("gone", dock.team, "approver")
    User.objects.filter(pk=gone.pk).update(is_active=False)
    what = Telling(
        telling.ASKED, key="k", thread="t", subject="s", text="x", link="/", repository=dock.repository,
        environment=dock.staging,
    )  # fmt: skip
    people = [blind, elsewhere, dock.outsider, dock.approver, admin, gone, robot(dock.team, "approver").user]
    tell(what, [each.pk for each in people])
    assert told("promotion.asked") == {"approver"}


def test_zero_approvals_ask_nobody(dock: Any) -> None:
    services.request_promotion(dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="x")
    assert told("promotion.asked") == set()
    assert told("promotion.decided") == {"requester", "deployer", "owner"}  # ready at once: who can run it


def test_requester_learns_the_decision_and_the_question_is_settled(dock: Any, request_: Any) -> None:
    services.approve(request_.pk, actor=dock.approver)
    assert told("promotion.decided") == {"requester", "deployer", "owner"}
    assert not InboxItem.objects.filter(notice__topic="promotion.asked", read_at=None).exists()


def test_rejection_names_who_and_why(dock: Any, request_: Any) -> None:
    services.reject(request_.pk, actor=dock.approver, reason="Not on a Friday.")
    assert told("promotion.decided") == {"requester"}
    text = Notice.objects.get(topic="promotion.decided").text
    assert text == "approver rejected it. Reason: Not on a Friday."


def test_end_of_a_promotion_is_told(dock: Any, request_: Any) -> None:
    services.approve(request_.pk, actor=dock.approver)
    services.execute(request_.pk, actor=dock.deployer)
    assert not InboxItem.objects.filter(notice__topic="promotion.decided", read_at=None).exists()  # it runs
    request_.refresh_from_db()
    services.fail(request_, why="The registry is full.", is_technical=True)
    assert told("promotion.failed") == {"requester", "deployer"}
    services.execute(request_.pk, actor=dock.deployer)
    request_.refresh_from_db()
    services.verify(request_)
    services.succeed(request_)
    assert told("promotion.executed") == {"requester", "approver"}  # not the deployer, who did it


def test_regression_is_told_to_requester_and_voters(dock: Any, request_: Any) -> None:
    services.approve(request_.pk, actor=dock.approver)
    type(dock.image).objects.filter(pk=dock.image.pk).update(scanned_at=None)
    services.reevaluate(request_)
    request_.refresh_from_db()
    assert request_.state == "open"
    assert told("promotion.regressed") == {"requester", "approver"}
    assert not InboxItem.objects.filter(notice__topic="promotion.decided", read_at=None).exists()


def test_expiry_is_told_once(dock: Any, request_: Any) -> None:
    PromotionRequest.objects.update(approve_by=clock.now() - timedelta(minutes=1))
    services.expire_due()
    services.expire_due()
    assert told("promotion.expired") == {"requester"}
    assert Notice.objects.filter(topic="promotion.expired").count() == 1


def test_reminder_is_told_once(dock: Any, request_: Any) -> None:
    now = clock.now()
    PromotionRequest.objects.update(created_at=now - timedelta(days=6), approve_by=now + timedelta(hours=3))
    for _ in range(2):
        automation.remind_due()
        assert Notice.objects.filter(topic="promotion.reminded").count() == 1
    assert told("promotion.reminded") == {"approver", "second", "owner"}


def test_reminder_of_a_ready_request_is_for_those_who_can_run_it(dock: Any, request_: Any) -> None:
    services.approve(request_.pk, actor=dock.approver)
    now = clock.now()
    PromotionRequest.objects.update(decided_at=now - timedelta(days=2), execute_by=now + timedelta(hours=3))
    automation.remind_due()
    assert told("promotion.reminded") == {"requester", "deployer", "owner"}


def test_objection_and_replacement_are_told(dock: Any, request_: Any) -> None:
    services.object_to(request_.pk, actor=dock.approver, reason="Wait for the audit.")
    assert told("promotion.decided") == {"requester"}
    assert "Wait for the audit." in Notice.objects.get(topic="promotion.decided").text
    PromotionRequest.objects.update(superseded_by=request_, supersede_at=clock.now())
    for action in (Action.PROMOTION_SUPERSEDING, Action.PROMOTION_SUPERSEDED):
        details = PromotionSuperseded(newer="PR-9")
        audit.record(action, actor=system_user(), subject=request_, team=dock.team, details=details)
    assert Notice.objects.filter(topic="promotion.expired").count() == 2
    assert told("promotion.expired") == {"requester"}


def test_responsible_of_a_robot_is_told(dock: Any) -> None:
    ci = robot(dock.team, "creator", maker=dock.requester)
    services.Slot.objects.update_or_create(
        repository=dock.repository, environment=dock.dev, defaults={"image": dock.image}
    )
    made = services.request_promotion(dock.repository, dock.image.digest, dock.staging, actor=ci.user, reason="x")
    services.reject(made.pk, actor=dock.approver, reason="no")
    assert told("promotion.decided") == {"requester"}


def test_lost_right_hides_what_was_told(dock: Any, request_: Any) -> None:
    assert unread_count(dock.approver) == 1
    item = inbox_of(dock.approver).get()
    RoleGrant.objects.filter(user=dock.approver).delete()
    assert unread_count(dock.approver) == 0
    caller = Caller(dock.approver)
    assert caller.get("notices/").json()["results"] == []
    assert caller.get(f"notices/{item.pk}/").status_code == 404
    assert caller.post(f"notices/{item.pk}/read/").status_code == 404


def test_list_is_read_in_the_browser(dock: Any, request_: Any) -> None:
    client = Client()
    client.force_login(dock.approver, backend=BACKEND)
    page = client.get(reverse("lifecycle:notices")).content.decode()
    assert f"{request_}: shop/api:1.0 to staging" in page
    assert '<b>1<span class="sr-only"> unread</span></b>' in page
    item = InboxItem.objects.get(person=dock.approver)
    answer = client.post(reverse("lifecycle:notice-open", args=[item.pk]))
    assert answer["Location"] == f"/promotions/{request_.pk}/"
    assert "unread</span></b>" not in client.get(reverse("lifecycle:notices")).content.decode()
    assert client.get("/notices/?show=unread").context["page"].rows == []
    other = InboxItem.objects.get(person=dock.second)
    assert client.post(reverse("lifecycle:notice-open", args=[other.pk])).status_code == 404


def test_list_is_read_by_api(dock: Any, request_: Any) -> None:
    caller = Caller(dock.approver)
    (row,) = caller.get("notices/", state="unread").json()["results"]
    assert row == caller.get(f"notices/{row['id']}/").json()
    assert (row["topic"], row["environment"], row["read_at"]) == ("promotion.asked", "staging", None)
    assert caller.post(f"notices/{row['id']}/read/").json()["read_at"] is not None
    assert caller.get("notices/", state="unread").json()["results"] == []
    assert len(caller.get("notices/").json()["results"]) == 1
    InboxItem.objects.update(read_at=None)
    assert caller.post("notices/read-all/").json() == {"read": 1}
    assert caller.post("notices/read-all/").json() == {"read": 0}
    assert unread_count(dock.second) == 1  # only one's own
    assert caller.get("notices/", state="x").status_code == 400


def test_notice_is_gone_when_its_action_is_rolled_back(dock: Any) -> None:
    with pytest.raises(services.PolicyBlocked):
        _ask_in_vain(dock)
    assert not Notice.objects.exists()


def _ask_in_vain(dock: Any) -> None:
    """Ask where nobody is left to approve."""
    RoleGrant.objects.filter(role__slug__in=("approver", "owner")).delete()
    services.request_promotion(dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="in vain")


def test_system_is_nobody_to_tell(dock: Any) -> None:
    assert unread_count(system_user()) == 0


def test_comment_is_told_to_those_who_take_part(dock: Any, request_: Any) -> None:
    threads.comment(request_.pk, actor=dock.approver, text="Why now?", is_blocking=True)
    assert told("promotion.discussed") == {"requester"}
    threads.comment(request_.pk, actor=dock.requester, text="A fix.")
    assert told("promotion.discussed") == {"requester", "approver"}


def test_break_glass_is_told_to_its_reviewers_and_the_review_to_who_used_it(dock: Any) -> None:
    dock.owner.set_password("dock-side-pass")
    dock.owner.save()
    breaker = Role.objects.create(slug="breaker", name="Breaker", verbs=["image.view", "promotion.breakglass"])
    RoleGrant.objects.create(user=dock.owner, team=dock.team, role=breaker)
    used = breakglass.break_glass(
        dock.repository, dock.image.digest, dock.staging, actor=dock.owner, reason="payments fail", incident="INC-7",
        password="dock-side-pass",
    )  # fmt: skip
    assert told("promotion.break_glass") == {"approver", "second"}
    ReviewDebt.objects.update(due_at=clock.now() - timedelta(seconds=1))
    assert breakglass.remind_of_reviews() == 1
    assert told("promotion.break_glass") == {"approver", "second"}
    assert Notice.objects.filter(topic="promotion.break_glass").count() == 2
    breakglass.settle(used.pk, actor=dock.approver, outcome="justified", comment="The fix was right.")
    last = Notice.objects.filter(topic="promotion.break_glass").latest("pk")
    assert last.text == "approver reviewed your use of break-glass. Reason: The fix was right."
    assert set(last.items.values_list("person__username", flat=True)) == {"owner"}
    open_items = InboxItem.objects.filter(notice__topic="promotion.break_glass", read_at=None)
    assert set(open_items.values_list("person__username", flat=True)) == {"owner"}


def test_verification_is_asked_and_settled(dock: Any, request_: Any) -> None:
    Environment.objects.filter(pk=dock.staging.pk).update(verification="manual")
    services.approve(request_.pk, actor=dock.approver)
    services.execute(request_.pk, actor=dock.deployer)
    services.verify(request_)
    services.succeed(request_)
    assert told("promotion.to_verify") == {"requester", "deployer", "owner"}
    verification.confirm(request_.pk, actor=dock.deployer, is_good=True, comment="works")
    assert not InboxItem.objects.filter(notice__topic="promotion.to_verify", read_at=None).exists()
