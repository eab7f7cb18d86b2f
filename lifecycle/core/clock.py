"""The current time, read only here, so that tests can freeze it."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone


def now() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return timezone.now()
