"""The current time, read only here, so that tests can freeze it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from django.utils import timezone

# Reproducible builds write a constant instead of a date: 0001-01-01, 1970-01-01, 1980-01-01 (ZIP's first day) or
# 1985-10-26 (npm's). Nothing that a registry holds is older than this.
EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
_AHEAD: Final = timedelta(days=1)  # a clock that is wrong by more than this says nothing


def now() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return timezone.now()


def stated(moment: datetime | None) -> datetime | None:
    """Return a past time that a document states, or None when it cannot be one: too old, or in the future."""
    return None if moment is None or not EARLIEST <= moment <= now() + _AHEAD else moment
