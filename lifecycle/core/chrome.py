"""The two counts in the top bar: lazy, so that a page that does not show them does not pay; counted once a page."""

from __future__ import annotations

from django.utils.functional import SimpleLazyObject, cached_property

from accounts.models import User


class Counts:
    """What waits for this user, and how many jobs run now."""

    def __init__(self, user: User) -> None:
        self._user = user

    @cached_property
    def inbox(self) -> int:
        """Promotion requests this user could decide now."""
        from lifecycle.promotion.queries import decidable_count  # noqa: PLC0415 -- core knows no sub-domain at import

        return decidable_count(self._user)

    @cached_property
    def running_jobs(self) -> int:
        """Jobs that a worker holds now, of any team."""
        from lifecycle.jobs.queries import running_count  # noqa: PLC0415 -- as above

        return running_count()


def counts(user: User) -> Counts:
    """Return the counts for `user`, computed when a template asks."""
    return SimpleLazyObject(lambda: Counts(user))  # type: ignore[return-value]
