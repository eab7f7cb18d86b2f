"""Publish and subscribe: plain function calls inside the publisher's transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from django.db import connection

from lifecycle.events import types
from lifecycle.events.types import Event

E = TypeVar("E", bound=Event)

_SUBSCRIBERS: Final[dict[type[Event], list[Callable[[Any], None]]]] = {}
_collectors: ContextVar[tuple[tuple[type[Event], list[Any]], ...]] = ContextVar("event_collectors", default=())


def subscribe(kind: type[E]) -> Callable[[Callable[[E], None]], Callable[[E], None]]:
    """Register the decorated function for events of class `kind`. It belongs in the `handlers.py` of its package.

    The function runs inside the publisher's transaction, so it must be fast and must not use the network. It can queue
    jobs, mark rows for a sweep, or call another service. An error in it rolls back the publisher's transaction.
    """

    def register(function: Callable[[E], None]) -> Callable[[E], None]:
        _SUBSCRIBERS.setdefault(kind, []).append(function)
        return function

    return register


def publish(event: Event) -> None:
    """Call every subscriber of the event's class, in the order of registration.

    Raises RuntimeError outside a transaction: the event and its effects must be stored together, or not at all.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"{type(event).__name__} published outside a transaction")
    for kind, events in _collectors.get():
        if isinstance(event, kind):
            events.append(event)
    for function in _SUBSCRIBERS.get(type(event), ()):
        function(event)


@contextmanager
def collected(kind: type[E]) -> Iterator[list[E]]:
    """Yield a list that collects the events of class `kind` that this thread publishes inside the block."""
    events: list[E] = []
    token = _collectors.set((*_collectors.get(), (kind, events)))
    try:
        yield events
    finally:
        _collectors.reset(token)


def subscriptions() -> dict[type[Event], tuple[Callable[[Any], None], ...]]:
    """Return {event class: its subscribers}, with an empty tuple for a class without subscribers."""
    kinds = (kind for kind in vars(types).values() if isinstance(kind, type) and issubclass(kind, Event))
    return {kind: tuple(_SUBSCRIBERS.get(kind, ())) for kind in kinds if kind is not Event}
