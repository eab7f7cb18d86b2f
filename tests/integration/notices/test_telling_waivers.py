"""Who is told what about waivers, once, and who never is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from freezegun import freeze_time

from accounts.models import Role
from lifecycle.advisories.models import Match
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.notices.models import Channel, InboxItem, Message, Notice
from lifecycle.notices.queries import inbox_of, unread_count
from lifecycle.notices.webhooks import event_of
from lifecycle.policies import waivers
from lifecycle.policies.types import Scope
from tests.clients import Caller
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.people import robot as new_robot
from tests.factories.policies import rule, save

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def guard(dock: Any) -> Any:
    """A member of the security role, with a rule to waive."""
    save(Scope(dock.team), rule(severity="high"), actor=dock.owner)
    return person("guard", dock.team, "security")


def ask(dock: Any, actor: Any, *, days: int = 7, **more: Any) -> Any:
    given = {"repository": dock.repository, "reason": "No fix yet", "ticket": "OPS-1"}
    until = clock.now() + timedelta(days=days)
    return waivers.request_waiver(dock.team, "r", actor=actor, until=until, **given | more)


def told(topic: str) -> set[str]:
    return set(InboxItem.objects.filter(notice__topic=topic).values_list("person__username", flat=True))


def unread(topic: str) -> int:
    return InboxItem.objects.filter(notice__topic=topic, read_at=None).count()


def test_those_who_can_approve_are_asked_and_the_requester_learns_the_decision(dock: Any, guard: Any) -> None:
    made = ask(dock, guard)
    assert told("waiver.asked") == {"approver", "second", "owner"}
    notice = Notice.objects.get(topic="waiver.asked")
    assert (notice.subject, notice.link) == (f"{made}: r for shop/api", f"/waivers/{made.pk}/")
    assert notice.text == f"guard asks for a waiver until {made.until:%Y-%m-%d}. Reason: No fix yet"
    assert (notice.repository, notice.team, notice.facts["ticket"]) == (dock.repository, None, "OPS-1")
    waivers.approve_waiver(made.pk, actor=dock.approver, reason="Read.")
    assert told("waiver.decided") == {"guard"}
    assert Notice.objects.get(topic="waiver.decided").text.endswith("Reason: Read.")
    assert not unread("waiver.asked")


def test_rejection_is_told_with_its_reason_to_who_answers_for_a_robot(dock: Any, guard: Any) -> None:
    role = Role.objects.create(slug="asker", name="Asker", verbs=["image.view", "waiver.request"])
    maker = person("maker")
    RoleGrant.objects.create(user=maker, team=dock.team, role=role)
    made = ask(dock, new_robot(dock.team, "asker", maker=maker).user)
    waivers.reject_waiver(made.pk, actor=dock.approver, reason="Update it.")
    assert told("waiver.decided") == {"maker"}
    assert Notice.objects.get(topic="waiver.decided").text == "approver rejected it. Reason: Update it."


def test_who_counts_as_the_requester_or_cannot_see_it_is_not_asked(dock: Any, guard: Any) -> None:
    blind = person("blind")
    RoleGrant.objects.create(
        user=blind, team=dock.team, role=Role.objects.create(slug="stamp", name="Stamp", verbs=["waiver.approve"])
    )
    elsewhere = person("elsewhere")
    approver = Role.objects.get(slug="approver")
    RoleGrant.objects.create(user=elsewhere, team=dock.team, role=approver, environment=dock.dev)
    for user in (guard, dock.second):  # two accounts of one person
        user.email, user.email_verified_at = "kim@example.com", clock.now()
        user.save()
    ask(dock, guard, environment=dock.staging)
    assert told("waiver.asked") == {"approver", "owner"}
    ask(dock, guard, environment=dock.dev)
    assert told("waiver.asked") == {"approver", "owner", "elsewhere"}


def test_waiver_of_an_environment_is_told_to_those_who_see_all_of_it(dock: Any, guard: Any) -> None:
    partly = person("partly")
    role = Role.objects.get(slug="approver")
    RoleGrant.objects.create(user=partly, team=dock.team, role=role, repository_pattern="shop/*")
    limited = person("limited")
    RoleGrant.objects.create(user=limited, team=dock.team, role=role, environment=dock.staging)
    hook = {"kind": "webhook", "topics": ["waiver.asked"], "created_by": dock.owner}
    ours, site = (Channel.objects.create(team=team, name="hook", **hook) for team in (dock.team, None))
    Channel.objects.create(team=rows.team("other"), name="hook", **hook)
    ask(dock, guard, repository=None, environment=dock.staging)
    assert told("waiver.asked") == {"approver", "second", "owner", "limited"}
    notice = Notice.objects.get(topic="waiver.asked")
    assert (notice.repository, notice.team, notice.environment) == (None, dock.team, dock.staging)
    assert set(Message.objects.values_list("channel", flat=True)) == {ours.pk, site.pk}
    event = event_of(notice)
    assert (event["subject"], event["data"]["team"], event["data"]["repository"]) == ("shop", "shop", None)
    shown = Caller(dock.approver).get("notices/").json()["results"]
    assert [(row["topic"], row["repository"], row["environment"]) for row in shown] == [
        ("waiver.asked", None, "staging")
    ]
    assert unread_count(dock.approver) == 1
    grant = RoleGrant.objects.get(user=dock.approver)
    grant.repository_pattern = "shop/*"
    grant.save()
    assert unread_count(dock.approver) == 0
    assert not inbox_of(dock.approver).exists()


def test_end_is_warned_of_14_3_and_1_days_before_once_each_and_then_told(dock: Any, guard: Any) -> None:
    made = ask(dock, guard, days=20)
    waivers.approve_waiver(made.pk, actor=dock.approver)
    texts = []
    for days in (13, 10, 2.5, 2, 0.5):
        with freeze_time(made.until - timedelta(days=days)):
            waivers.end_waivers()
            waivers.end_waivers()
        texts = list(Notice.objects.filter(topic="waiver.ending").order_by("pk").values_list("text", flat=True))
    assert [text.split(".")[0].rpartition("in at most ")[2] for text in texts] == ["14 days", "3 days", "1 day"]
    assert told("waiver.ending") == {"guard", "approver"}
    assert unread("waiver.ending") == 2  # only the newest warning of each
    with freeze_time(made.until + timedelta(minutes=1)):
        waivers.end_waivers()
    assert told("waiver.ended") == {"guard", "approver"}
    assert Notice.objects.get(topic="waiver.ended").text == "Its time is over: the rule applies again."
    assert not unread("waiver.ending")


def test_fix_that_closes_a_waiver_is_told(dock: Any, guard: Any) -> None:
    base = rows.image("with openssl")
    package = rows.package("openssl", "3.0.11")
    rows.carry(base, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    advisory = Match.objects.get().advisory.vulnerability
    made = ask(dock, guard, advisory=advisory, days=60)
    waivers.approve_waiver(made.pk, actor=dock.approver)
    waivers.end_waivers()
    assert not told("waiver.ended")
    Match.objects.update(fixed_version="3.0.12")
    waivers.end_waivers()
    assert told("waiver.ended") == {"guard", "approver"}
    assert "a fix shipped" in Notice.objects.get(topic="waiver.ended").text
    assert "3.0.12" in Notice.objects.get(topic="waiver.ended").text


def test_revocation_is_told_to_the_others(dock: Any, guard: Any) -> None:
    made = ask(dock, guard)
    waivers.revoke_waiver(made.pk, actor=guard, reason="Fixed.")
    assert told("waiver.ended") == set()
    other = ask(dock, guard)
    waivers.approve_waiver(other.pk, actor=dock.approver)
    waivers.revoke_waiver(other.pk, actor=dock.second, reason="It is exploited.")
    assert told("waiver.ended") == {"guard", "approver"}
    assert Notice.objects.filter(topic="waiver.ended").latest("pk").text.endswith("Reason: It is exploited.")


def test_notice_opens_the_page_and_a_waiver_can_be_muted(client: Any, dock: Any, guard: Any) -> None:
    made = ask(dock, guard)
    client.force_login(dock.approver, backend=BACKEND)
    page = client.get(reverse("lifecycle:notices")).content.decode()
    assert f"{made}: r for shop/api" in page
    item = InboxItem.objects.get(person=dock.approver)
    assert client.post(reverse("lifecycle:notice-open", args=[item.pk])).url == f"/waivers/{made.pk}/"
    until = f"{clock.now() + timedelta(days=2):%Y-%m-%dT%H:%M}"
    sent = {"scope": "thread", "value": str(made), "until": until}
    assert client.post(reverse("lifecycle:notice-mutes"), sent).status_code == 302
    assert [row.value for row in dock.approver.notice_mutes.all()] == [f"waiver-{made.pk}"]
