"""API tokens of people. See robots.py for the tokens of robots."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from accounts import tokens
from accounts.models import ApiToken, Team, User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, TokenCreated, TokenRevoked
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound, NotPermitted

NAME_MAX = 120  # characters, as in the model


@transaction.atomic
def create_api_token(
    user: User, *, actor: User, name: str, days: float | None = None, with_token: ApiToken | None = None
) -> str:
    """Create a token of `user` and return its text, which is shown once.

    Users create tokens only for themselves; the system user creates them for others. A robot cannot create its own
    tokens. A token created `with_token` expires no later than that token, also without `days`. Otherwise, a leaked
    token with one day left would give access for ever. Raises NotPermitted, or Malformed.
    """
    if actor.pk != user.pk and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("You can only create tokens for your own account.")
    if user.kind == User.Kind.ROBOT and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("Create robot tokens on the team page. You need robot.manage.")
    # One second less than the time left, because the row below is written a moment later.
    now = clock.now() + timedelta(seconds=1)
    left = None if with_token is None else (with_token.expires_at - now) / timedelta(days=1)
    if days is None:
        days = tokens.DEFAULT_DAYS if left is None else min(left, tokens.DEFAULT_DAYS)
    elif left is not None and days > left:
        raise NotPermitted(
            "A token created with a token cannot expire later than that token."
            " Sign in in the browser to create a longer one."
        )
    if not user.is_active or user.kind == User.Kind.SYSTEM:
        raise NotPermitted("This account cannot have tokens.")
    return write_token(user, actor=actor, name=name, days=days)[1]


def write_token(user: User, *, actor: User, name: str, days: float, team: Team | None = None) -> tuple[ApiToken, str]:
    """Store a token of `user` and return (row, text). The caller has checked the permission. Raises Malformed."""
    name = name.strip()
    if not 0 < days <= 366:
        raise Malformed("A token is valid for 1 to 366 days.")
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise Malformed(f"Enter a token name of up to {NAME_MAX} characters.")
    kind = ApiToken.Kind.ROBOT if user.kind == User.Kind.ROBOT else ApiToken.Kind.PERSONAL
    row, text = tokens.create_token(user, kind=kind, name=name, days=days, made_by=actor)
    details = TokenCreated(user=user.username, lookup=row.lookup, days=days)
    audit.record(Action.TOKEN_CREATED, actor=actor, subject=row, team=team, details=details)
    return row, text


@transaction.atomic
def revoke_api_token(token_id: int, *, actor: User) -> None:
    """Revoke one of the actor's own tokens; raises NotFound."""
    row = ApiToken.objects.select_for_update().filter(pk=token_id, user=actor, revoked_at=None).first()
    if row is None:
        raise NotFound("Token not found, or you don't have access.")
    end_token(row, actor=actor)


def end_token(row: ApiToken, *, actor: User, team: Team | None = None) -> None:
    """Revoke a token and record it in the audit log. The caller has checked the permission."""
    tokens.revoke(row)
    details = TokenRevoked(user=row.user.username, lookup=row.lookup)
    audit.record(Action.TOKEN_REVOKED, actor=actor, subject=row, team=team, details=details)
