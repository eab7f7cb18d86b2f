"""Limits for rejected credentials per account and per address, shared by all endpoints that take credentials.

These are the browser's sign-in, the registry's token endpoint and the API. The count is the number of rows in
PostgreSQL. A flush of Redis, a restart, another process, another endpoint or a success does not reset it.

A *valid token* is accepted even when the limit is reached. A token has 202 random bits, so it cannot be guessed.
Otherwise, every user who knows a robot's name could lock it out. An endpoint that takes passwords counts the attempt
before it checks the password (`reserve`).
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
PER_ADDRESS: Final = 100  # an office or the nodes of a cluster can share an address
RETRY_AFTER_S: Final = int(WINDOW.total_seconds())  # by then, every attempt that counts now has left the window
_KEEP: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that counts as rejected until `succeeded()` is called."""

    row_id: int

    def succeeded(self) -> None:
        """Remove this attempt from the count. Earlier rejected attempts still count."""
        CredentialFailure.objects.filter(pk=self.row_id).delete()


def is_exhausted(account: str, address: str | None) -> bool:
    """Return whether the account ("" for unknown) or the address has reached its limit in the current window."""
    recent = CredentialFailure.objects.filter(at__gt=Now() - WINDOW)
    name = _account(account)
    if name and recent.filter(account=name).count() >= PER_ACCOUNT:
        return True
    checked = parse_address(address or "")
    return checked is not None and recent.filter(address=checked).count() >= PER_ADDRESS


def reserve(account: str, address: str | None) -> Attempt | None:
    """Count one attempt as rejected before it is checked.

    Returns None and counts nothing when the limit is reached. Attempts on one account wait for one lock. Without the
    lock, fifty parallel attempts could all see that one attempt is left.
    """
    name, checked = _account(account), parse_address(address or "")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7007))", [name or str(checked)])
        if is_exhausted(account, address):
            return None
        return Attempt(CredentialFailure.objects.create(account=name, address=checked).pk)


def note_failure(account: str, address: str | None) -> bool:
    """Count one rejected credential. Returns False and counts nothing when the limit was already reached."""
    return reserve(account, address) is not None


def forgive(account: str) -> int:
    """Delete the rejected attempts of an account, so that its owner can sign in again; returns their number."""
    deleted, _ = CredentialFailure.objects.filter(account=_account(account)).delete()
    return deleted


def forget_old() -> int:
    """Delete rows older than any window; returns their number."""
    deleted, _ = CredentialFailure.objects.filter(at__lt=Now() - _KEEP).delete()
    return deleted


def _account(text: str) -> str:
    return text.replace("\x00", "\ufffd").lower()[:150]
