"""Mails to a real server: threads, quiet hours, digests, mutes, attempts."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import pytest
from django.test import Client
from freezegun import freeze_time

from accounts.models import User
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.jobs.kinds import gave_up
from lifecycle.jobs.models import Job
from lifecycle.notices import preferences
from lifecycle.notices.handlers import tidy
from lifecycle.notices.models import InboxItem, Message, Mute, Notice
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from tests.clients import Caller
from tests.integration.notices.sending import send

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
ALL = frozenset({"promotion.asked", "promotion.decided"})


def wish(person: User, **values: Any) -> None:
    given: dict[str, Any] = {
        "inbox": ALL, "mail": ALL, "digest": "off", "digest_at": time(8), "quiet_from": None, "quiet_until": None,
    } | values  # fmt: skip
    preferences.save_preferences(preferences.Wish(**given), actor=person)


def text_of(mail: Any, kind: str = "plain") -> str:
    return str(mail.get_body((kind,)).get_content())


def test_mail_has_text_and_html_and_belongs_to_its_thread(dock: Any, mailbox: Any, request_: Any) -> None:
    send()
    services.reject(request_.pk, actor=dock.second, reason="no <b>way</b>")
    send()
    (mail,) = mailbox.mails
    subject = f"{request_}: shop/api:1.0 to staging"
    assert (mail["Subject"], mail["To"]) == (subject, "approver@example.com")
    assert mail["References"] == mail["In-Reply-To"] == f"<promotionrequest-{request_.pk}.thread@localhost>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == f"<{Message.objects.get().key}@localhost>"
    for kind in ("plain", "html"):
        assert f"/promotions/{request_.pk}/" in text_of(mail, kind)
        assert "requester asks for approval. Reason: release" in text_of(mail, kind)
    sent = Message.objects.get()
    assert (sent.state, sent.last_status, sent.attempts, sent.subject) == ("sent", 250, 1, subject)
    assert sent.body.splitlines() == text_of(mail).splitlines()
    assert Job.objects.get(kind="notify").state == "succeeded"


def test_many_notices_of_one_thread_are_one_mail(dock: Any, mailbox: Any, request_: Any) -> None:
    User.objects.filter(pk=dock.requester.pk).update(email="requester@example.com")
    for _ in range(3):
        services.approve(request_.pk, actor=dock.approver)
        services.withdraw_vote(request_.pk, actor=dock.approver)
    send()
    mails = [mail for mail in mailbox.mails if mail["To"] == "requester@example.com"]
    assert len(mails) == 1
    assert text_of(mails[0]).count("All requirements are met.") == 3
    assert Message.objects.filter(person=dock.requester).count() == 1


def test_notice_after_the_mail_left_is_a_new_mail(dock: Any, mailbox: Any, request_: Any) -> None:
    User.objects.filter(pk=dock.requester.pk).update(email="requester@example.com")
    services.approve(request_.pk, actor=dock.approver)
    send()
    services.withdraw_vote(request_.pk, actor=dock.approver)
    send()
    mails = [mail for mail in mailbox.mails if mail["To"] == "requester@example.com"]
    assert len(mails) == 2
    assert mails[0]["References"] == mails[1]["References"]
    assert mails[0]["Message-ID"] != mails[1]["Message-ID"]


def test_right_that_is_lost_before_the_mail_leaves(dock: Any, mailbox: Any, request_: Any) -> None:
    RoleGrant.objects.filter(user=dock.approver).delete()
    send()
    assert mailbox.mails == []
    assert Message.objects.get().state == "skipped"


def test_mail_that_is_not_wanted_is_not_queued(dock: Any, mailbox: Any) -> None:
    wish(dock.approver, mail=frozenset())
    _ask(dock)
    assert not Message.objects.exists()
    assert InboxItem.objects.filter(person=dock.approver).exists()


def test_nothing_is_queued_without_mail_server_or_address(dock: Any, settings: Any, mailbox: Any) -> None:
    settings.MAIL_IS_ON = False
    _ask(dock)
    assert not Job.objects.filter(kind="notify").exists()


def _ask(dock: Any) -> PromotionRequest:
    services.Slot.objects.update_or_create(
        repository=dock.repository, environment=dock.dev, defaults={"image": dock.image}
    )
    return services.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="release"
    )


@freeze_time("2026-11-29T22:00:00Z")
def test_quiet_hours_end_with_one_mail(dock: Any, mailbox: Any) -> None:
    wish(dock.approver, quiet_from=time(18), quiet_until=time(8), time_zone="Europe/Berlin")
    services.withdraw(_ask(dock).pk, actor=dock.requester)
    _ask(dock)
    message = Message.objects.get()
    assert (message.kind, message.due_at.isoformat()) == ("digest", "2026-11-30T07:00:00+00:00")
    assert Job.objects.get(kind="notify").not_before == message.due_at
    send()
    (mail,) = mailbox.mails
    assert mail["Subject"] == "Gravingdock: 2 notices"
    assert mail["References"] is None


@freeze_time("2026-11-29T10:00:00Z")
def test_daily_digest_comes_at_its_time(dock: Any, mailbox: Any) -> None:
    User.objects.filter(pk=dock.approver.pk).update(time_zone="Asia/Kathmandu")
    dock.approver.refresh_from_db()
    wish(dock.approver, digest="daily", digest_at=time(9))
    _ask(dock)
    assert Message.objects.get().due_at == datetime.fromisoformat("2026-11-30T03:15:00+00:00")


@pytest.mark.parametrize("scope", ["all", "repository", "thread", "topic"])
def test_mute_ends_by_itself(dock: Any, mailbox: Any, scope: str) -> None:
    first = _ask(dock)
    values = {"repository": "shop/api", "thread": f"promotionrequest-{first.pk + 1}", "topic": "promotion.asked"}
    Message.objects.all().delete()
    services.withdraw(first.pk, actor=dock.requester)
    preferences.mute(scope, values.get(scope, ""), clock.now() + timedelta(hours=1), actor=dock.approver)
    second = _ask(dock)
    if scope == "thread" and values["thread"] != f"promotionrequest-{second.pk}":
        pytest.skip("another request got the number")
    assert not Message.objects.exists()
    item = InboxItem.objects.get(person=dock.approver, notice__thread=f"promotionrequest-{second.pk}")
    assert item.read_at is not None
    services.withdraw(second.pk, actor=dock.requester)
    Mute.objects.update(until=clock.now() - timedelta(seconds=1))
    _ask(dock)
    assert Message.objects.filter(person=dock.approver).count() == 1


def test_mail_is_tried_again_until_the_server_takes_it(dock: Any, mailbox: Any, request_: Any) -> None:
    mailbox.refuses = "451 Try later"
    send()
    message = Message.objects.get()
    assert (message.state, message.attempts, message.last_status) == ("retrying", 1, 451)
    job = Job.objects.get(kind="notify")
    assert (job.state, job.attempts) == ("waiting", 0)  # the message counts its attempts, not the job
    assert job.not_before > clock.now()
    mailbox.refuses = ""
    send()
    assert Message.objects.get().state == "sent"
    assert mailbox.mails[0]["Message-ID"] == f"<{message.key}@localhost>"


def test_refused_address_is_not_tried_again(dock: Any, mailbox: Any, request_: Any) -> None:
    mailbox.refuses = "550 No such user"
    send()
    message = Message.objects.get()
    assert (message.state, message.last_status) == ("failed", 550)
    assert "550" in message.last_error


def test_attempts_end_after_a_day(dock: Any, mailbox: Any, request_: Any) -> None:
    mailbox.refuses = "451 Try later"
    for _ in range(12):
        send()
    message = Message.objects.get()
    assert (message.state, message.attempts) == ("failed", 10)


def test_cancelled_job_fails_its_message(dock: Any, mailbox: Any, request_: Any) -> None:
    gave_up(Job.objects.get(kind="notify"))
    assert Message.objects.get().state == "failed"


def test_test_mail_reaches_its_reader(dock: Any, mailbox: Any) -> None:
    client = Client()
    client.force_login(dock.approver, backend=BACKEND)
    assert client.post("/account/notices/test-mail/").status_code == 302
    answer = Caller(dock.approver).post("notice-preferences/test-mail/")
    assert (answer.status_code, answer.json()["kind"]) == (202, "test")
    send()
    assert [mail["Subject"] for mail in mailbox.mails] == ["Gravingdock: test mail"] * 2
    refused = Caller(dock.outsider).post("notice-preferences/test-mail/")
    assert (refused.status_code, "no mail address" in refused.json()["detail"]) == (400, True)


def test_preferences_page_and_api_agree(dock: Any, mailbox: Any) -> None:
    client, caller = Client(), Caller(dock.approver)
    client.force_login(dock.approver, backend=BACKEND)
    assert "promotion.executed" not in caller.get("notice-preferences/").json()["mail"]  # by default not mailed
    form = {
        "inbox": ["promotion.asked"], "mail": ["promotion.executed"], "digest": "daily", "digest_at": "09:30",
        "quiet_from": "18:00", "quiet_until": "08:00", "time_zone": "Asia/Tokyo",
    }  # fmt: skip
    assert client.post("/account/notices/", form).status_code == 302
    assert caller.get("notice-preferences/").json() == {
        "inbox": ["promotion.asked"], "mail": ["promotion.executed"], "digest": "daily", "digest_at": "09:30:00",
        "quiet_from": "18:00:00", "quiet_until": "08:00:00", "time_zone": "Asia/Tokyo",
    }  # fmt: skip
    page = client.get("/account/notices/").content.decode()
    assert 'value="09:30"' in page
    wrong = client.post("/account/notices/", form | {"quiet_until": ""})
    assert (wrong.status_code, "Quiet hours need a start and an end." in wrong.content.decode()) == (422, True)
    assert caller.put("notice-preferences/", {"inbox": ["x"], "mail": []}).status_code == 400
    assert caller.put("notice-preferences/", {"inbox": [], "mail": []}).json()["inbox"] == []


def test_mutes_are_one_s_own(dock: Any) -> None:
    client, caller = Client(), Caller(dock.approver)
    client.force_login(dock.approver, backend=BACKEND)
    until = f"{clock.now() + timedelta(days=2):%Y-%m-%dT%H:%M}"
    form = {"scope": "thread", "value": "pr-13", "until": until}
    assert client.post("/account/notices/mutes/", form).status_code == 302
    (row,) = caller.get("notice-mutes/").json()["results"]
    assert (row["scope"], row["value"]) == ("thread", "promotionrequest-13")
    assert Caller(dock.second).get("notice-mutes/").json()["results"] == []
    assert Caller(dock.second).delete(f"notice-mutes/{row['id']}/").status_code == 404
    past = {"scope": "all", "until": str(clock.now() - timedelta(days=1))}
    assert caller.post("notice-mutes/", past).status_code == 400
    assert client.post("/account/notices/mutes/", {"scope": "topic", "value": "x", "until": until}).status_code == 422
    assert client.post(f"/account/notices/mutes/{row['id']}/end/").status_code == 302
    assert not Mute.objects.exists()


def test_old_notices_and_messages_are_deleted(dock: Any, mailbox: Any, request_: Any) -> None:
    tidy()
    assert (Notice.objects.count(), Message.objects.count()) == (1, 1)
    Message.objects.update(created_at=clock.now() - timedelta(days=31))
    Notice.objects.update(at=clock.now() - timedelta(days=181))
    tidy()
    assert (Notice.objects.count(), Message.objects.count()) == (0, 0)
