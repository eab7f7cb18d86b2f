"""Context for `base.html`. The counts in the top bar are computed once, and only when a template shows them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, cached_property

from accounts.models import User
from lifecycle.core.counting import counts_of
from lifecycle.jobs.queries import running
from lifecycle.notices.queries import inbox_of
from lifecycle.promotion.queries import debts_to_settle, decidable_by, unseen_results_of


class Counts:
    """The numbers of requests and results that wait for this user, of unread notices, and of running jobs."""

    def __init__(self, user: User) -> None:
        self._user = user

    @cached_property
    def _all(self) -> tuple[int, ...]:
        user = self._user
        return counts_of(
            decidable_by(user),
            unseen_results_of(user),
            debts_to_settle(user),
            inbox_of(user, is_unread=True),
            running(),
        )

    @property
    def inbox(self) -> int:
        """Number of requests that this user can vote on, of their unseen results, and of break-glass to review."""
        return sum(self._all[:3])

    @property
    def notices(self) -> int:
        """Number of unread notices of this user."""
        return self._all[3]

    @property
    def running_jobs(self) -> int:
        """Number of running jobs of all teams."""
        return self._all[4]


def counts(user: User) -> Counts:
    """Return the counts for `user`, computed when a template uses them."""
    return SimpleLazyObject(lambda: Counts(user))  # type: ignore[return-value]  # the lazy object stands for its Counts


def chrome(request: HttpRequest) -> dict[str, Any]:
    """Return the context that `base.html` needs on every page: the counts, the theme, the host of the registry."""
    user = getattr(request, "user", None)
    theme = request.COOKIES.get("gd_theme", "")
    context: dict[str, Any] = {
        "theme": theme if theme in {"light", "dark"} else getattr(user, "theme", "system"),
        "registry_host": settings.REGISTRY_PUBLIC_URL.partition("://")[2],
        "public_url": settings.PUBLIC_URL,
        "is_embedded": settings.EMBEDDED,
        "builds_unconfined": settings.BUILD_UNCONFINED,
    }
    if user is not None and user.is_authenticated:
        context["chrome"] = counts(user)
    return context
