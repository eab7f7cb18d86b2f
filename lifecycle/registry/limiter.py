"""How many refused credentials an account and an address may bring: one budget for every door (security.md B7).

The count is rows in PostgreSQL, so that flushing Redis, restarting, another process or another door resets nothing,
and a success does not either.

A *valid token* is let in even when the budget is spent: with 202 random bits there is nothing to guess, and anybody
who knows a robot's name could otherwise stop it. Doors that take passwords must ask `is_exhausted` before they check.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Final

from django.db import connection, transaction
from django.db.models.functions import Now

from lifecycle.registry.models import CredentialFailure

WINDOW: Final = timedelta(minutes=5)
PER_ACCOUNT: Final = 20  # containerd presents one wrong password twice (protocols.md 3.4)
PER_ADDRESS: Final = 100  # an office, or a cluster's nodes, may share one
_KEEP: Final = timedelta(days=1)


def is_exhausted(account: str, address: str | None) -> bool:
    """Whether the account, or the address, has no refusals left in the present window."""
    recent = CredentialFailure.objects.filter(at__gt=Now() - WINDOW)
    if recent.filter(account=_account(account)).count() >= PER_ACCOUNT:
        return True
    checked = _address(address)
    return checked is not None and recent.filter(address=checked).count() >= PER_ADDRESS


def note_failure(account: str, address: str | None) -> bool:
    """Count one refused credential; returns False when the budget was spent already (and counts nothing).

    The account's attempts queue up behind one lock, so that fifty at once cannot all see the last free place.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7007))", [_account(account)])
        if is_exhausted(account, address):
            return False
        CredentialFailure.objects.create(account=_account(account), address=_address(address))
        return True


def forget_old() -> int:
    """Delete what no window can reach any more; returns how many rows."""
    deleted, _ = CredentialFailure.objects.filter(at__lt=Now() - _KEEP).delete()
    return deleted


def _account(text: str) -> str:
    return text.replace("\x00", "\ufffd").lower()[:150]


def _address(text: str | None) -> str | None:
    try:
        return str(ipaddress.ip_address(text or ""))
    except ValueError:
        return None
