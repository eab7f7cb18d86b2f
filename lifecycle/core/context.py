"""Who acts, from where, in which request: set once at the edge, read by the audit trail; and what each page needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the audit trail keeps of the request that led to an event; empty in a worker."""

    request_id: str = ""
    address: str | None = None
    token_lookup: str = ""


_current: ContextVar[RequestContext] = ContextVar("request_context", default=RequestContext())  # noqa: B039 -- frozen


def current() -> RequestContext:
    """Return the context of the request that is being answered."""
    return _current.get()


@contextmanager
def request_context(context: RequestContext) -> Iterator[None]:
    """Set the context for a block, and put the old one back (security.md G21: cleared, never left over)."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def set_token_lookup(lookup: str) -> None:
    """Note which API token the request came with; the request's own block clears it."""
    now = _current.get()
    _current.set(RequestContext(now.request_id, now.address, lookup))


def chrome(request: HttpRequest) -> dict[str, Any]:
    """Return what `base.html` shows on every page: counts for the bar, the theme, the registry's host."""
    user = getattr(request, "user", None)
    theme = request.COOKIES.get("gd_theme", "")
    context: dict[str, Any] = {
        "theme": theme if theme in {"light", "dark"} else getattr(user, "theme", "system"),
        "registry_host": settings.REGISTRY_URL.partition("://")[2],
        "public_url": settings.PUBLIC_URL,
        "is_embedded": settings.EMBEDDED,
    }
    if user is not None and user.is_authenticated:
        from lifecycle.core.chrome import counts  # noqa: PLC0415 -- reaches up into the sub-domains, lazily

        context["chrome"] = counts(user)
    return context
