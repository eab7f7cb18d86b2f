"""Tokens of people; those of robots are made beside the robots."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from accounts import tokens
from accounts.models import ApiToken, Team, User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, TokenCreated, TokenRevoked
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound, NotPermitted

NAME_MAX = 120  # characters, as in the table


@transaction.atomic
def create_api_token(
    user: User, *, actor: User, name: str, days: float | None = None, with_token: ApiToken | None = None
) -> str:
    """Make a token of `user` and return its text, which is shown once. Only for oneself, or by Gravingdock itself.

    Made `with_token`, it ends no later than that one, also where `days` is not said: else a token that leaked for a day
    would be good for ever. A robot makes none at all; who manages it does. Raises NotPermitted, or Malformed.
    """
    if actor.pk != user.pk and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("A token is made by the one it belongs to.")
    if user.kind == User.Kind.ROBOT and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("A robot's tokens are made by who manages it, on its team's page.")
    # A second less than is left: the row below is written by a later clock.
    now = clock.now() + timedelta(seconds=1)
    left = None if with_token is None else (with_token.expires_at - now) / timedelta(days=1)
    if days is None:
        days = tokens.DEFAULT_DAYS if left is None else min(left, tokens.DEFAULT_DAYS)
    elif left is not None and days > left:
        raise NotPermitted("A token made with a token ends no later than that one; sign in by browser to make it last.")
    if not user.is_active or user.kind == User.Kind.SYSTEM:
        raise NotPermitted("This account holds no tokens.")
    return write_token(user, actor=actor, name=name, days=days)[1]


def write_token(user: User, *, actor: User, name: str, days: float, team: Team | None = None) -> tuple[ApiToken, str]:
    """Store a token of `user` and return (row, text), after the right was checked; raises Malformed."""
    name = name.strip()
    if not 0 < days <= 366:
        raise Malformed("A token lives for 1 to 366 days.")
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise Malformed(f"Name the token, in up to {NAME_MAX} characters: you will know it by that.")
    kind = ApiToken.Kind.ROBOT if user.kind == User.Kind.ROBOT else ApiToken.Kind.PERSONAL
    row, text = tokens.create_token(user, kind=kind, name=name, days=days, made_by=actor)
    details = TokenCreated(user=user.username, lookup=row.lookup, days=days)
    audit.record(Action.TOKEN_CREATED, actor=actor, subject=row, team=team, details=details)
    return row, text


@transaction.atomic
def revoke_api_token(token_id: int, *, actor: User) -> None:
    """End one of one's own tokens now; raises NotFound."""
    row = ApiToken.objects.select_for_update().filter(pk=token_id, user=actor, revoked_at=None).first()
    if row is None:
        raise NotFound("No such token.")
    end_token(row, actor=actor)


def end_token(row: ApiToken, *, actor: User, team: Team | None = None) -> None:
    """Revoke a token after the right was checked, and say so in the trail."""
    tokens.revoke(row)
    details = TokenRevoked(user=row.user.username, lookup=row.lookup)
    audit.record(Action.TOKEN_REVOKED, actor=actor, subject=row, team=team, details=details)
