"""Context of the current request (id, address, token): set by the middleware, read by the audit log."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Request details that the audit log stores with an event; empty in a worker."""

    request_id: str = ""
    address: str | None = None
    token_lookup: str = ""
    client: str = ""  # the User-Agent of the browser, for the list of sessions
    # Seconds since 1970 of the last proof of identity in this browser session, 0 for none: any proof (a password,
    # single sign-on), and one with a second factor.
    confirmed_at: float = 0
    strong_at: float = 0


_current: ContextVar[RequestContext] = ContextVar("request_context", default=RequestContext())  # noqa: B039 -- frozen
_memory: ContextVar[dict[Hashable, Any] | None] = ContextVar("read_memory", default=None)


def current() -> RequestContext:
    """Return the context of the current request."""
    return _current.get()


@contextmanager
def request_context(context: RequestContext, *, is_read: bool = False) -> Iterator[None]:
    """Set the context for a block, and restore the old one at its end.

    With `is_read`, the request changes nothing, so `once_a_read` caches values until the end of the block.
    """
    token, memory_token = _current.set(context), _memory.set({} if is_read else None)
    try:
        yield
    finally:
        _current.reset(token)
        _memory.reset(memory_token)


def once_a_read(key: Hashable, make: Callable[[], T]) -> T:
    """Return the result of `make`: cached per `key` in a read-only request, computed at each call anywhere else."""
    memory = _memory.get()
    if memory is None:
        return make()
    if key not in memory:
        memory[key] = make()
    value: T = memory[key]
    return value


def remember_for_read(key: Hashable, value: object) -> None:
    """Keep a value that was read already, as if `once_a_read` had made it; nothing outside of a read-only request."""
    memory = _memory.get()
    if memory is not None:
        memory[key] = value


def set_token_lookup(lookup: str) -> None:
    """Store the API token of the request in the context; `request_context` clears it at the end."""
    _current.set(replace(_current.get(), token_lookup=lookup))


def set_proofs(*, confirmed_at: float, strong_at: float) -> None:
    """Store when the person of this browser session last proved who they are; `request_context` clears it."""
    _current.set(replace(_current.get(), confirmed_at=confirmed_at, strong_at=strong_at))
