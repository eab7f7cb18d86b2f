"""How many refused credentials an account and an address may bring: one budget for every door.

Doors: the browser's sign-in, the registry's token endpoint, the API. The count is rows in PostgreSQL, so that flushing
Redis, restarting, another process or another door resets nothing, and a success does not either.

A *valid token* is let in even when the budget is spent: with 202 random bits there is nothing to guess, and anybody
who knows a robot's name could otherwise stop it. A door that takes passwords counts first and looks then (`reserve`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import connection, transaction
from django.db.models.functions import Now

from lifecycle.authority.models import CredentialFailure
from lifecycle.core.address import parse_address

WINDOW: Final = timedelta(minutes=5)
PER_ACCOUNT: Final = 20  # containerd presents one wrong password twice
PER_ADDRESS: Final = 100  # an office, or a cluster's nodes, may share one
RETRY_AFTER_S: Final = 30  # a place comes free when the oldest refusal leaves the window
_KEEP: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that counts as refused until it `succeeded()`."""

    row_id: int

    def succeeded(self) -> None:
        """Take this one attempt out of the count; what was refused before stays in it."""
        CredentialFailure.objects.filter(pk=self.row_id).delete()


def is_exhausted(account: str, address: str | None) -> bool:
    """Whether the account ("" for none known), or the address, has no refusals left in the present window."""
    recent = CredentialFailure.objects.filter(at__gt=Now() - WINDOW)
    name = _account(account)
    if name and recent.filter(account=name).count() >= PER_ACCOUNT:
        return True
    checked = parse_address(address or "")
    return checked is not None and recent.filter(address=checked).count() >= PER_ADDRESS


def reserve(account: str, address: str | None) -> Attempt | None:
    """Count one attempt as refused, before it is judged; returns None, and counts nothing, when the budget is spent.

    The account's attempts queue up behind one lock, so that fifty at once cannot all see the last free place.
    """
    name, checked = _account(account), parse_address(address or "")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7007))", [name or str(checked)])
        if is_exhausted(account, address):
            return None
        return Attempt(CredentialFailure.objects.create(account=name, address=checked).pk)


def note_failure(account: str, address: str | None) -> bool:
    """Count one refused credential; returns False when the budget was spent already (and counts nothing)."""
    return reserve(account, address) is not None


def forgive(account: str) -> int:
    """Forget what was refused to an account, so that its owner gets in again; returns how many."""
    deleted, _ = CredentialFailure.objects.filter(account=_account(account)).delete()
    return deleted


def forget_old() -> int:
    """Delete what no window can reach any more; returns how many rows."""
    deleted, _ = CredentialFailure.objects.filter(at__lt=Now() - _KEEP).delete()
    return deleted


def _account(text: str) -> str:
    return text.replace("\x00", "\ufffd").lower()[:150]
