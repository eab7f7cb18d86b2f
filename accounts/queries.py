"""Queries of accounts that several callers share."""

from __future__ import annotations

from typing import Final

from accounts.models import User

SYSTEM_USERNAME: Final = "gravingdock"  # also the `sub` of our own registry tokens


def system_user() -> User:
    """Return the system user, the account of Gravingdock itself. A migration creates it."""
    return User.objects.get(username=SYSTEM_USERNAME)
