"""What every page shows around its content; the two counts in the top bar are counted once, and only when shown."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, cached_property

from accounts.models import User
from lifecycle.jobs.queries import running_count
from lifecycle.promotion.queries import decidable_count


class Counts:
    """What waits for this user, and how many jobs run now."""

    def __init__(self, user: User) -> None:
        self._user = user

    @cached_property
    def inbox(self) -> int:
        """Promotion requests this user could decide now."""
        return decidable_count(self._user)

    @cached_property
    def running_jobs(self) -> int:
        """Jobs that a worker holds now, of any team."""
        return running_count()


def counts(user: User) -> Counts:
    """Return the counts for `user`, computed when a template asks."""
    return SimpleLazyObject(lambda: Counts(user))  # type: ignore[return-value]  # the lazy object stands for its Counts


def chrome(request: HttpRequest) -> dict[str, Any]:
    """Return what `base.html` shows on every page: counts for the bar, the theme, the registry's host."""
    user = getattr(request, "user", None)
    theme = request.COOKIES.get("gd_theme", "")
    context: dict[str, Any] = {
        "theme": theme if theme in {"light", "dark"} else getattr(user, "theme", "system"),
        "registry_host": settings.REGISTRY_PUBLIC_URL.partition("://")[2],
        "public_url": settings.PUBLIC_URL,
        "is_embedded": settings.EMBEDDED,
    }
    if user is not None and user.is_authenticated:
        context["chrome"] = counts(user)
    return context
