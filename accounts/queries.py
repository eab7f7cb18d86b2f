"""Reads of people and teams that several callers share."""

from __future__ import annotations

from typing import Final

from accounts.models import User

SYSTEM_USERNAME: Final = "gravingdock"  # also the `sub` of our own registry tokens


def system_user() -> User:
    """Return the row that stands for Gravingdock itself; a migration made it."""
    return User.objects.get(username=SYSTEM_USERNAME)
