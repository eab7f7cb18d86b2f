"""Limits for rejected credentials per account and per address, shared by all endpoints that take credentials.

These are the browser's sign-in, the registry's token endpoint and the API. The count is the number of rows in
PostgreSQL. A flush of Redis, a restart, another process, another endpoint or a success does not reset it.

A *valid token* is accepted even when the limit is reached. A token has 202 random bits, so it cannot be guessed.
Otherwise, every user who knows a robot's name could lock it out. An endpoint that takes passwords counts the attempt
before it checks the password (`reserve`).

A code of an authenticator app has six digits, of which three are right at any moment, and whoever guesses it knows the
password already. So wrong codes have a budget of their own that grows slower the longer it goes on: 20 a day. Somebody
who guesses must not lock the owner out for ever: an address from which the person signed in lately has its own budget,
and passkeys and recovery codes, which nobody can guess, have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import connection, transaction
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Now

from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import CredentialFailure
from lifecycle.core.address import parse_address

WINDOW: Final = timedelta(minutes=5)
PER_ACCOUNT: Final = 20  # containerd presents one wrong password twice
PER_ADDRESS: Final = 100  # an office or the nodes of a cluster can share an address
RETRY_AFTER_S: Final = int(WINDOW.total_seconds())  # by then, every attempt that counts now has left the window
# (in this time, so many wrong codes of one account). 20 a day are 0.006 %: one right guess in 45 years.
CODES: Final = ((timedelta(minutes=5), 5), (timedelta(hours=1), 10), (timedelta(days=1), 20))
_KNOWN_FOR: Final = timedelta(days=30)
_KEEP: Final = timedelta(days=1)  # the longest window


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that counts as rejected until `succeeded()` is called."""

    row_id: int

    def succeeded(self) -> None:
        """Remove this attempt from the count. Earlier rejected attempts still count."""
        CredentialFailure.objects.filter(pk=self.row_id).delete()


def is_exhausted(account: str, address: str | None) -> bool:
    """Return whether the account ("" for unknown) or the address has reached its limit in the current window."""
    recent = CredentialFailure.objects.filter(at__gt=Now() - WINDOW, is_code=False)
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


def reserve_code(account: str, address: str | None) -> Attempt | None:
    """Count one code of an authenticator app as wrong before it is checked, as `reserve` does, in the budget of codes.

    Call it in the attempt of `reserve`, which it adds to.
    """
    name, checked = _account(account), parse_address(address or "")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7008))", [name])
        wrong = CredentialFailure.objects.filter(account=name, is_code=True)
        if _is_code_budget_spent(wrong) and (
            not _is_known(account, checked) or _is_code_budget_spent(wrong.filter(address=checked))
        ):
            return None
        return Attempt(CredentialFailure.objects.create(account=name, address=checked, is_code=True).pk)


def wrong_codes(account: str) -> int:
    """Return how many wrong codes of an app there were for the account in the last day."""
    window, _ = CODES[-1]
    return CredentialFailure.objects.filter(account=_account(account), is_code=True, at__gt=Now() - window).count()


def _is_code_budget_spent(wrong: QuerySet[CredentialFailure]) -> bool:
    counts = wrong.aggregate(
        **{f"within_{index}": Count("pk", filter=Q(at__gt=Now() - window)) for index, (window, _) in enumerate(CODES)}
    )
    return any(counts[f"within_{index}"] >= most for index, (_, most) in enumerate(CODES))


def _is_known(account: str, address: str | None) -> bool:
    """Return whether the person signed in from this address lately. Only then somebody else cannot spend the budget."""
    if address is None:
        return False
    started = AuditEvent.objects.filter(
        action=Action.SESSION_STARTED.value, actor_name=account, address=address, at__gt=Now() - _KNOWN_FOR
    )
    return started.exists()


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
