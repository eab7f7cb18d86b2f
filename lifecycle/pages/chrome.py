"""Context for `base.html`. The two counts in the top bar are computed once, and only when a template shows them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, cached_property

from accounts.models import User
from lifecycle.jobs.queries import running_count
from lifecycle.promotion.queries import decidable_count, unseen_results_of


class Counts:
    """The number of requests and results that wait for this user, and the number of running jobs."""

    def __init__(self, user: User) -> None:
        self._user = user

    @cached_property
    def inbox(self) -> int:
        """Number of promotion requests this user can approve or reject now, and of unseen results of their own."""
        return decidable_count(self._user) + unseen_results_of(self._user).count()

    @cached_property
    def running_jobs(self) -> int:
        """Number of running jobs of all teams."""
        return running_count()


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
