"""Resets of how a person signs in: whoever made one could have signed in as that person (docs/adr/0025).

For a time after it, the account decides nothing. For longer, it and the admin who reset it count as one person.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q, QuerySet

from accounts.models import IdentityReset, User
from lifecycle.core import clock
from lifecycle.core.context import once_a_read
from lifecycle.core.reasons import Reason

Kind = IdentityReset.Kind
COOL_DOWN: Final = timedelta(hours=24)  # in which the person and the other admins can notice it
ONE_PERSON_FOR: Final = timedelta(days=30)


def standing() -> QuerySet[IdentityReset]:
    """Return the resets after which the person and whoever made them still count as one."""
    return IdentityReset.objects.filter(ended_at=None, at__gt=clock.now() - ONE_PERSON_FOR)


def cooling() -> QuerySet[IdentityReset]:
    """Return the resets after which the person decides nothing yet, the last one first."""
    return standing().filter(at__gt=clock.now() - COOL_DOWN).order_by("-at", "-pk")


def why_reset(person: User) -> Reason | None:
    """Return why the person cannot decide anything yet: an admin reset how they sign in. None for everybody else."""

    def find() -> Reason | None:
        row = cooling().filter(user=person).select_related("made_by").first()
        return Reason(words_of(person.username, row.made_by.username, row.at)) if row is not None else None

    return once_a_read(("identity reset", person.pk), find)


def words_of(person: str, by: str, at: datetime) -> str:
    """Return the sentences that say whose identity was reset by whom, and until when it does not count."""
    until = at + COOL_DOWN
    return (
        f"Identity reset by {by}, who could sign in as {person} since then."
        f" Votes of {person} count again from {until:%Y-%m-%d %H:%M} UTC."
    )


def note_reset(user: User, *, actor: User, kind: Kind) -> None:
    """Remember that `actor` changed how `user` signs in. Commands are exempt: they prove it by the machine.

    Whoever could act as `actor` could do it too.
    """
    if actor.kind == User.Kind.SYSTEM:
        return
    makers = {actor.pk, *standing().filter(user=actor).values_list("made_by", flat=True)} - {user.pk}
    now = clock.now()
    IdentityReset.objects.bulk_create(
        IdentityReset(user=user, made_by_id=pk, kind=kind, at=now) for pk in sorted(makers)
    )


def begin_again(user: User) -> None:
    """Count the time of password resets from now: what they gave is used for the first time."""
    standing().filter(user=user, kind=Kind.PASSWORD).update(at=clock.now())


def end_by_factor(user: User, *, since: datetime) -> None:
    """End the doubts that a second factor of the person settles: it is older (`since`), so no admin made it.

    It does not settle that all factors were removed: then another person can have set it up.
    """
    rows = IdentityReset.objects.filter(user=user, ended_at=None, at__gt=since).exclude(kind=Kind.FACTORS)
    rows.update(ended_at=clock.now())


def reset_with(user_ids: Collection[int]) -> QuerySet[User]:
    """Return the accounts that one of `user_ids` reset, and those that reset one of them."""
    ids = list(user_ids)
    rows = standing()
    return User.objects.filter(
        Q(pk__in=rows.filter(made_by__in=ids).values("user")) | Q(pk__in=rows.filter(user__in=ids).values("made_by"))
    )
