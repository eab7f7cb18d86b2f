"""Channels: webhooks to a real receiver, chat by Apprise, deliveries, and who manages them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.test import Client
from standardwebhooks import Webhook

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock, sealing
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, StaleVersion
from lifecycle.jobs.models import Job
from lifecycle.notices import channels
from lifecycle.notices.models import Channel, Message, Notice
from lifecycle.notices.webhooks import signature
from lifecycle.promotion import services
from tests.clients import Caller
from tests.factories import dock as rows
from tests.integration.notices.sending import send

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
ASKED = ["promotion.asked"]


class Receiver:
    """An HTTP server on 127.0.0.1. `statuses` are its next answers, then 204; `location` redirects."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.calls.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    made = Receiver()
    settings.OUTBOUND_ALLOW = [made.place]
    yield made
    made.close()


def webhook(dock: Any, receiver: Receiver, **values: Any) -> tuple[Channel, str]:
    given: dict[str, Any] = {"topics": ASKED, "address": f"http://{receiver.place}/hook"} | values
    return channels.create_channel(dock.team, "ops", "webhook", actor=dock.owner, **given)


def ask(dock: Any) -> Any:
    services.Slot.objects.update_or_create(
        repository=dock.repository, environment=dock.dev, defaults={"image": dock.image}
    )
    return services.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="release"
    )


def test_published_vector_of_the_signature() -> None:
    body = b'{"type":"image.promoted","data":{}}'
    found = signature("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "evt_0001", 1_700_000_000, body)
    assert found == "v1,BtY74l8oWbS+4VjN+PSH3bIJ+X2pQX1e2G0dsmulSb4="


def test_event_is_a_cloud_event_that_the_library_of_others_verifies(dock: Any, receiver: Receiver) -> None:
    _, secret = webhook(dock, receiver)
    request = ask(dock)
    send()
    ((path, headers, body),) = receiver.calls
    assert path == "/hook"
    event = Webhook(secret).verify(body, headers)  # raises for a wrong signature or an old time stamp
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    notice = Notice.objects.get()
    assert (event["specversion"], event["id"], event["type"]) == (
        "1.0", f"notice-{notice.pk}", "io.gravingdock.promotion.asked.v1",
    )  # fmt: skip
    assert event["subject"] == f"shop/api@{dock.image.digest}"
    assert event["data"]["link"].endswith(f"/promotions/{request.pk}/")
    assert (event["data"]["team"], event["data"]["environment"]) == ("shop", "staging")
    message = Message.objects.get()
    assert (message.state, message.last_status, headers["webhook-id"]) == ("sent", 200, f"msg_{message.key}")


def test_channel_gets_its_team_and_its_topics_only(dock: Any, receiver: Receiver) -> None:
    webhook(dock, receiver, topics=["promotion.failed"])
    other = rows.team("other")
    admin = User.objects.create(username="admin", is_superuser=True)
    channels.create_channel(other, "theirs", "webhook", f"http://{receiver.place}/x", ASKED, actor=admin)
    ask(dock)
    assert not Message.objects.exists()


def test_site_channel_gets_every_team_and_needs_an_admin(dock: Any, receiver: Receiver) -> None:
    address = f"http://{receiver.place}/all"
    with pytest.raises(NotPermitted):
        channels.create_channel(None, "all", "webhook", address, ASKED, actor=dock.owner)
    admin = User.objects.create(username="admin", is_superuser=True)
    channels.create_channel(None, "all", "webhook", address, ASKED, actor=admin)
    ask(dock)
    send()
    assert [path for path, _, _ in receiver.calls] == ["/all"]


def test_failed_delivery_is_tried_again_with_the_same_event(dock: Any, receiver: Receiver) -> None:
    _, secret = webhook(dock, receiver)
    receiver.statuses = [500, 302, 503]
    receiver.headers = {"Retry-After": "1800", "Location": f"http://{receiver.place}/elsewhere"}
    ask(dock)
    send()
    message = Message.objects.get()
    assert (message.state, message.last_status, message.attempts) == ("retrying", 500, 1)
    assert (message.due_at - clock.now()).total_seconds() > 1700  # as the receiver asked
    assert Job.objects.get(kind="notify").not_before is not None
    for _ in range(3):
        send()
    assert [path for path, _, _ in receiver.calls] == ["/hook"] * 4  # a redirect is not followed
    assert len({body for _, _, body in receiver.calls}) == 1
    assert len({headers["webhook-id"] for _, headers, _ in receiver.calls}) == 1
    for _, headers, body in receiver.calls:
        Webhook(secret).verify(body, headers)
    assert Message.objects.get().state == "sent"


def test_410_turns_the_channel_off(dock: Any, receiver: Receiver) -> None:
    channel, _ = webhook(dock, receiver)
    receiver.statuses = [410]
    ask(dock)
    send()
    channel.refresh_from_db()
    assert (channel.is_enabled, channel.disabled_reason) == (
        False, "The receiver answered 410: it wants no more events.",
    )  # fmt: skip
    assert Message.objects.get().state == "failed"
    event = AuditEvent.objects.get(action="channel.turned_off")
    assert (event.actor_name, event.team) == ("gravingdock", dock.team)
    services.withdraw(services.PromotionRequest.objects.get().pk, actor=dock.requester)
    ask(dock)
    assert Message.objects.count() == 1  # nothing is queued for it
    with pytest.raises(Conflict, match="is off"):
        channels.redeliver(Message.objects.get().pk, actor=dock.owner)
    channels.change_channel(channel.pk, actor=dock.owner, name="ops", topics=ASKED, is_enabled=True)
    channels.redeliver(Message.objects.get().pk, actor=dock.owner)
    send()
    assert Message.objects.get().state == "sent"


def test_redelivery_has_the_same_id_and_body(dock: Any, receiver: Receiver) -> None:
    webhook(dock, receiver)
    ask(dock)
    with pytest.raises(Conflict, match="sent or failed"):
        channels.redeliver(Message.objects.get().pk, actor=dock.owner)
    send()
    message = Message.objects.get()
    for stranger in (dock.approver, dock.outsider):
        with pytest.raises(NotFound):
            channels.redeliver(message.pk, actor=stranger)
    answer = Caller(dock.owner).post(f"messages/{message.pk}/redeliver/")
    assert (answer.status_code, answer.json()["state"]) == (202, "retrying")
    send()
    first, second = receiver.calls
    assert (first[2], first[1]["webhook-id"]) == (second[2], second[1]["webhook-id"])


def test_private_address_is_refused_when_it_is_called(dock: Any, receiver: Receiver, settings: Any) -> None:
    webhook(dock, receiver)
    settings.OUTBOUND_ALLOW = []
    ask(dock)
    send()
    assert receiver.calls == []
    message = Message.objects.get()
    assert (message.state, message.last_error) == ("failed", "Calls to this address are not allowed.")
    assert Job.objects.get(kind="notify").state == "succeeded"


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("webhook", "http://example.com/hook"), ("webhook", "ftp://example.com"), ("webhook", "https://u:p@example.com"),
        ("webhook", "file:///etc/passwd"), ("chat", "json://127.0.0.1"), ("chat", "file:///etc/passwd"),
        ("chat", "syslog://"), ("chat", "mailto://u:p@example.com"), ("chat", "slack://short"),
        ("chat", "mmost://chat.example.com/3ccdd113474722377935511fc85d3dd4"), ("fax", "https://example.com"),
    ],
)  # fmt: skip
def test_address_that_is_no_channel_is_refused(dock: Any, kind: str, address: str) -> None:
    with pytest.raises(Malformed):
        channels.create_channel(dock.team, "ops", kind, address, ASKED, actor=dock.owner)
    assert not Channel.objects.exists()


def mattermost(dock: Any, receiver: Receiver) -> Channel:
    address = f"mmost://{receiver.place}/3ccdd113474722377935511fc85d3dd4"
    topics = [*ASKED, "promotion.decided"]
    return channels.create_channel(dock.team, "chat", "chat", address, topics, actor=dock.owner)[0]


def test_chat_gets_the_notices_of_a_thread_together(dock: Any, receiver: Receiver) -> None:
    channel = mattermost(dock, receiver)
    assert channel.host == "mmost 127.0.0.1"
    request = ask(dock)
    services.reject(request.pk, actor=dock.approver, reason="no")
    send()
    ((path, _, body),) = receiver.calls
    assert path == "/hooks/3ccdd113474722377935511fc85d3dd4"
    text = json.loads(body)["text"]
    for words in (f"{request}: shop/api:1.0 to staging", "asks for approval", "approver rejected it.", "/promotions/"):
        assert words in text
    assert Message.objects.get().state == "sent"


def test_chat_that_refuses_is_tried_again(dock: Any, receiver: Receiver) -> None:
    mattermost(dock, receiver)
    receiver.statuses = [403]
    ask(dock)
    send()
    message = Message.objects.get()
    assert (message.state, message.last_status) == ("retrying", 403)
    send()
    assert Message.objects.get().state == "sent"


def test_chat_reaches_no_private_address(dock: Any, receiver: Receiver, settings: Any) -> None:
    mattermost(dock, receiver)
    settings.OUTBOUND_ALLOW = []
    ask(dock)
    send()
    assert receiver.calls == []
    assert (Message.objects.get().state, Message.objects.get().attempts) == ("failed", 1)
    assert Job.objects.get(kind="notify").state == "succeeded"


def test_chat_is_not_redirected_to_a_private_address(dock: Any, receiver: Receiver) -> None:
    inside = Receiver()
    try:
        mattermost(dock, receiver)
        receiver.statuses, receiver.headers = [307], {"Location": f"http://{inside.place}/secret"}
        ask(dock)
        send()
        assert len(receiver.calls) == 1
        assert inside.calls == []
        assert Message.objects.get().state != "sent"
    finally:
        inside.close()


def test_secrets_are_sealed_and_shown_once(dock: Any, receiver: Receiver) -> None:
    caller = Caller(dock.owner)
    body = {
        "team": "shop", "name": "ops", "kind": "webhook", "address": f"http://{receiver.place}/hook?token=hidden",
        "topics": ASKED,
    }  # fmt: skip
    made = caller.post("channels/", body)
    assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
    secret = made.json()["secret"]
    channel = Channel.objects.get()
    assert b"hidden" not in bytes(channel.address_sealed)
    assert sealing.unseal(bytes(channel.secret_sealed), channel, "secret_sealed") == secret
    for path in ("channels/", f"channels/{channel.pk}/", "messages/", "audit-events/"):
        text = caller.get(path).content.decode()
        assert secret not in text
        assert "hidden" not in text
    assert {(Channel, "address_sealed"), (Channel, "secret_sealed")} <= set(sealing.registered_fields())


def test_channel_is_changed_by_its_revision(dock: Any, receiver: Receiver) -> None:
    channel, _ = webhook(dock, receiver)
    with pytest.raises(StaleVersion):
        channels.change_channel(channel.pk, actor=dock.owner, name="x", topics=ASKED, is_enabled=True, revision=9)
    changed = channels.change_channel(
        channel.pk, actor=dock.owner, name="x", topics=ASKED, is_enabled=False, revision=1
    )
    assert (changed.revision, changed.disabled_reason) == (2, "Turned off by owner.")
    with pytest.raises(Conflict, match="is off"):
        channels.test_channel(channel.pk, actor=dock.owner)
    with pytest.raises(Malformed):
        channels.change_channel(channel.pk, actor=dock.owner, name="x", topics=["y"], is_enabled=True)
    channels.delete_channel(channel.pk, actor=dock.owner)
    actions = AuditEvent.objects.filter(action__startswith="channel.").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["channel.created", "channel.changed", "channel.deleted"]


def test_pages_create_test_and_list(dock: Any, receiver: Receiver) -> None:
    client = Client()
    client.force_login(dock.owner, backend=BACKEND)
    form = {
        "team": "shop", "name": "ops", "kind": "webhook", "address": f"http://{receiver.place}/hook", "topics": ASKED,
    }  # fmt: skip
    made = client.post("/channels/new/", form)
    assert "whsec_" in made.content.decode()
    assert "no-store" in made["Cache-Control"]
    channel = Channel.objects.get()
    assert client.post(f"/channels/{channel.pk}/test/").status_code == 302
    send()
    page = client.get(f"/channels/{channel.pk}/").content.decode()
    assert "Sent (200)" in page
    assert "whsec_" not in page
    assert "ops" in client.get("/channels/").content.decode()
    assert client.post(f"/channels/messages/{Message.objects.get().pk}/redeliver/").status_code == 302
    wrong = client.post("/channels/new/", form | {"address": "ftp://x", "name": "b"})
    assert (wrong.status_code, "Enter an address such as" in wrong.content.decode()) == (422, True)


def test_one_receiver_that_fails_does_not_hold_up_another(dock: Any, receiver: Receiver, settings: Any) -> None:
    webhook(dock, receiver)
    other = Receiver()
    try:
        settings.OUTBOUND_ALLOW = [receiver.place, other.place]
        channels.create_channel(dock.team, "b", "webhook", f"http://{other.place}/b", ASKED, actor=dock.owner)
        receiver.statuses = [500] * 5
        ask(dock)
        send()
        assert len(other.calls) == 1
        states = set(Message.objects.values_list("channel__name", "state"))
        assert states == {("ops", "retrying"), ("b", "sent")}
    finally:
        other.close()
