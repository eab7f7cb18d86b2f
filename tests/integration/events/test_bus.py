"""Events: published only inside a transaction, delivered to subscribers, listed by a command."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.db import transaction

from lifecycle import events
from lifecycle.events import bus


@pytest.fixture
def received(monkeypatch):
    """Replace all subscribers by one for TagMoved, and return the list of events it receives."""
    monkeypatch.setattr(bus, "_SUBSCRIBERS", {})
    tag_moves: list[events.TagMoved] = []
    events.subscribe(events.TagMoved)(tag_moves.append)
    return tag_moves


@pytest.mark.django_db
def test_subscriber_receives_only_its_event_class(received):
    moved = events.TagMoved(1, "latest", 2)
    events.publish(events.ImageIngested(1))
    events.publish(moved)
    assert received == [moved]


@pytest.mark.django_db(transaction=True)
def test_publish_outside_transaction_raises_runtime_error(received):
    with pytest.raises(RuntimeError, match="TagMoved"):
        events.publish(events.TagMoved(1, "latest", 2))
    assert received == []
    with transaction.atomic():
        events.publish(events.TagMoved(1, "latest", 2))
    assert len(received) == 1


@pytest.mark.django_db
def test_exception_of_subscriber_reaches_the_publisher(monkeypatch):
    monkeypatch.setattr(bus, "_SUBSCRIBERS", {})

    @events.subscribe(events.TagMoved)
    def fail(event: events.TagMoved) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        events.publish(events.TagMoved(1, "latest", 2))


@pytest.mark.django_db
def test_collected_returns_only_events_of_its_block(received):
    with events.collected(events.TagMoved) as inside:
        events.publish(events.TagMoved(1, "a", 2))
        events.publish(events.ImageIngested(1))
    events.publish(events.TagMoved(1, "b", 2))
    assert [event.tag for event in inside] == ["a"]


def test_every_event_has_a_subscriber_or_is_collected():
    without_subscriber = {kind.__name__ for kind, functions in events.subscriptions().items() if not functions}
    assert without_subscriber == set()


def test_events_command_lists_events_and_subscribers():
    out = StringIO()
    call_command("events", stdout=out)
    assert "TagMoved" in out.getvalue()
    assert "lifecycle.rebuild.handlers.plan_for_watches" in out.getvalue()
