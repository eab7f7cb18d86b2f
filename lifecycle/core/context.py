"""Who acts, from where, in which request: set once at the edge, read by the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the audit trail keeps of the request that led to an event; empty in a worker."""

    request_id: str = ""
    address: str | None = None
    token_lookup: str = ""


_current: ContextVar[RequestContext] = ContextVar("request_context", default=RequestContext())  # noqa: B039 -- frozen
_memory: ContextVar[dict[Hashable, Any] | None] = ContextVar("read_memory", default=None)


def current() -> RequestContext:
    """Return the context of the request that is being answered."""
    return _current.get()


@contextmanager
def request_context(context: RequestContext, *, is_read: bool = False) -> Iterator[None]:
    """Set the context for a block, and put the old one back (cleared, never left over).

    `is_read` says that the request changes nothing, so that what it read once holds until its end: see `once_a_read`.
    """
    token, memory_token = _current.set(context), _memory.set({} if is_read else None)
    try:
        yield
    finally:
        _current.reset(token)
        _memory.reset(memory_token)


def once_a_read(key: Hashable, make: Callable[[], T]) -> T:
    """Return what `make` returns, made once in a request that only reads, and anew at each call anywhere else."""
    memory = _memory.get()
    if memory is None:
        return make()
    if key not in memory:
        memory[key] = make()
    found: T = memory[key]
    return found


def set_token_lookup(lookup: str) -> None:
    """Note which API token the request came with; the request's own block clears it."""
    now = _current.get()
    _current.set(RequestContext(now.request_id, now.address, lookup))
