"""`gravingdock notice` and `gravingdock channel`."""

from __future__ import annotations

import io
import json

import pytest

from lifecycle.notices.models import Channel, InboxItem, Message

pytestmark = pytest.mark.django_db
ADDRESS = "https://example.com/hook?token=hidden"


def test_notices_are_listed_and_read(dock, run, request_):
    code, out, _ = run(dock.approver, "notice", "list", "--unread")
    assert code == 0
    assert "promotion.asked" in out
    assert f"{request_}: shop/api:1.0 to staging" in out
    number = InboxItem.objects.get(person=dock.approver).pk
    assert json.loads(run(dock.approver, "notice", "list", "--json")[1])["id"] == number
    assert run(dock.approver, "notice", "read", number)[:2] == (0, "Marked as read: 1.\n")
    assert "promotion.asked" not in run(dock.approver, "notice", "list", "--unread")[1]
    assert run(dock.second, "notice", "read", "--all")[1] == "Marked as read: 1.\n"
    assert run(dock.second, "notice", "read")[0] == 2
    assert run(dock.outsider, "notice", "read", number)[0] == 1


def test_channel_is_created_tested_and_redelivered(dock, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(ADDRESS + "\n"))
    code, out, _ = run(dock.owner, "channel", "create", "ops", "--team", "shop", "--topic", "promotion.failed")
    assert code == 0
    assert "whsec_" in out
    channel = Channel.objects.get()
    assert (channel.host, channel.topics) == ("example.com", ["promotion.failed"])
    listed = run(dock.owner, "channel", "list")[1]
    assert "example.com" in listed
    assert "hidden" not in listed
    assert "on its way" in run(dock.owner, "channel", "test", "ops")[1]
    message = Message.objects.get()
    Message.objects.update(state="failed", last_error="The receiver answered 500.")
    assert "The receiver answered 500." in run(dock.owner, "channel", "deliveries", channel.pk)[1]
    assert run(dock.owner, "channel", "redeliver", message.pk)[1] == f"Message {message.pk} is sent again.\n"
    code, _, err = run(dock.outsider, "channel", "test", "ops")
    assert (code, err) == (1, "No channel ops, or you don't have access.\n")
    monkeypatch.setenv("GRAVINGDOCK_CHANNEL_ADDRESS", "ftp://example.com")
    code, _, err = run(dock.owner, "channel", "create", "b", "--team", "shop", "--topic", "promotion.failed")
    assert code == 1
    assert "Enter an address such as" in err
