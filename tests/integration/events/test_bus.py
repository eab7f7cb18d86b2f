"""Events: published inside a transaction only, heard by whoever subscribed, listed by a command."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.db import transaction

from lifecycle import events
from lifecycle.events import bus


@pytest.fixture
def heard(monkeypatch):
    """Return what a subscriber of TagMoved hears, in place of all real subscribers."""
    monkeypatch.setattr(bus, "_SUBSCRIBERS", {})
    received: list[events.TagMoved] = []
    events.subscribe(events.TagMoved)(received.append)
    return received


@pytest.mark.django_db
def test_a_subscriber_hears_only_its_own_class(heard):
    moved = events.TagMoved(1, "latest", 2)
    events.publish(events.ImageIngested(1))
    events.publish(moved)
    assert heard == [moved]


@pytest.mark.django_db(transaction=True)
def test_an_event_outside_a_transaction_is_a_programming_error(heard):
    with pytest.raises(RuntimeError, match="TagMoved"):
        events.publish(events.TagMoved(1, "latest", 2))
    assert heard == []
    with transaction.atomic():
        events.publish(events.TagMoved(1, "latest", 2))
    assert len(heard) == 1


@pytest.mark.django_db
def test_what_a_subscriber_raises_reaches_the_publisher(monkeypatch):
    monkeypatch.setattr(bus, "_SUBSCRIBERS", {})

    @events.subscribe(events.TagMoved)
    def fail(event: events.TagMoved) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        events.publish(events.TagMoved(1, "latest", 2))


@pytest.mark.django_db
def test_collected_holds_the_events_of_its_block(heard):
    with events.collected(events.TagMoved) as inside:
        events.publish(events.TagMoved(1, "a", 2))
        events.publish(events.ImageIngested(1))
    events.publish(events.TagMoved(1, "b", 2))
    assert [event.tag for event in inside] == ["a"]


def test_every_event_has_a_subscriber_or_is_collected():
    unheard = {kind.__name__ for kind, functions in events.subscriptions().items() if not functions}
    assert unheard == {"DerivationsChanged"}  # import_inventory counts these


def test_the_command_lists_who_hears_what():
    out = StringIO()
    call_command("events", stdout=out)
    assert "TagMoved" in out.getvalue()
    assert "lifecycle.rebuild.handlers.plan_for_watches" in out.getvalue()
