"""API tokens of people, and the registry sign-ins made with tokens. See robots.py for the tokens of robots."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import transaction

from accounts import tokens
from accounts.models import ApiToken, Robot, Team, User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import TokenCreated, TokenRevoked
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound, NotPermitted

NAME_MAX = 120  # characters, as in the model
REFRESH_DAYS: Final = 90
_REFRESH_LIVE_MAX: Final = 20  # per user and service; each `docker login` creates one


@transaction.atomic
def create_api_token(
    user: User, *, actor: User, name: str, days: float | None = None, with_token: ApiToken | None = None
) -> str:
    """Create a token of `user` and return its text, which is shown once.

    Users create tokens only for themselves; the system user creates them for others. A robot cannot create its own
    tokens. A token created `with_token` expires no later than that token, also without `days`, and ends with it.
    Otherwise, a leaked token with one day left would give access for ever. Raises NotPermitted, or Malformed.
    """
    if actor.pk != user.pk and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("You can only create tokens for your own account.")
    if user.kind == User.Kind.ROBOT and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("Create robot tokens on the team page. You need robot.manage.")
    if not user.is_active or user.kind == User.Kind.SYSTEM:
        raise NotPermitted("This account cannot have tokens.")
    return write_token(user, actor=actor, name=name, days=days, with_token=with_token)[1]


def write_token(
    user: User,
    *,
    actor: User,
    name: str,
    days: float | None = None,
    team: Team | None = None,
    with_token: ApiToken | None = None,
) -> tuple[ApiToken, str]:
    """Store a token of `user` and return (row, text). The caller has checked the permission.

    Raises Malformed, or NotPermitted for a token that would expire later than the token it is created with.
    """
    name, left = name.strip(), None
    if with_token is not None:
        # One second less than the time left, because the row below is written a moment later.
        left = (with_token.expires_at - clock.now() - timedelta(seconds=1)) / timedelta(days=1)
    if days is None:
        days = tokens.DEFAULT_DAYS if left is None else min(left, tokens.DEFAULT_DAYS)
    elif left is not None and days > left:
        raise NotPermitted(
            "A token created with a token cannot expire later than that token."
            " Sign in in the browser to create a longer one."
        )
    if not 0 < days <= 366:
        raise Malformed("A token is valid for 1 to 366 days.")
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise Malformed(f"Enter a token name of up to {NAME_MAX} characters.")
    kind = ApiToken.Kind.ROBOT if user.kind == User.Kind.ROBOT else ApiToken.Kind.PERSONAL
    row, text = tokens.create_token(user, kind=kind, name=name, days=days, made_by=actor, parent=with_token)
    _record_created(row, days=days, actor=actor, team=team)
    return row, text


def _record_created(row: ApiToken, *, days: float, actor: User, team: Team | None = None) -> None:
    parent = row.parent.lookup if row.parent is not None else ""
    seen_by = actor.username if actor.pk != row.user_id else ""
    if actor.kind == User.Kind.SYSTEM:
        seen_by = "exempt: made by the operator"
    details = TokenCreated(
        user=row.user.username, lookup=row.lookup, days=days, kind=row.kind, parent=parent, seen_by=seen_by
    )
    audit.record(Action.TOKEN_CREATED, actor=actor, subject=row, team=team, details=details)


@transaction.atomic
def create_registry_sign_in(token: ApiToken, *, client: str) -> str:
    """Create the refresh token of a registry client that signed in with `token`, and return its text.

    It ends with `token`, at the latest after REFRESH_DAYS. The oldest ones above _REFRESH_LIVE_MAX are revoked.
    """
    user = token.user
    row, text = tokens.create_token(
        user,
        kind=ApiToken.Kind.REFRESH,
        name=f"registry sign-in ({client.replace(chr(0), '')[:80] or 'unknown client'})",
        days=REFRESH_DAYS,
        service=settings.REGISTRY_SERVICE,
        made_by=token.made_by,
        parent=token,
    )
    days = round((row.expires_at - row.created_at) / timedelta(days=1), 3)
    _record_created(row, days=days, actor=user, team=_team_of(row))
    live = ApiToken.objects.filter(
        user=user, kind=ApiToken.Kind.REFRESH, service=settings.REGISTRY_SERVICE, revoked_at=None
    )
    for old in live.select_related("user").order_by("-created_at", "-pk")[_REFRESH_LIVE_MAX:]:
        end_token(old, actor=user, team=_team_of(old))
    return text


def _team_of(row: ApiToken) -> Team | None:
    robot = Robot.objects.select_related("team").filter(user=row.user_id).first()
    return robot.team if robot is not None else None


@transaction.atomic
def revoke_api_token(token_id: int, *, actor: User) -> None:
    """Revoke one of the actor's own tokens; raises NotFound."""
    row = ApiToken.objects.select_for_update().filter(pk=token_id, user=actor, revoked_at=None).first()
    if row is None:
        raise NotFound("Token not found, or you don't have access.")
    end_token(row, actor=actor)


def end_tokens_of(user: User, *, actor: User) -> int:
    """Revoke every token of an account, also its registry sign-ins, and return their number.

    The caller has checked the permission, and locked the account.
    """
    rows = list(ApiToken.objects.select_for_update().filter(user=user, revoked_at=None).order_by("pk"))
    for row in rows:
        end_token(row, actor=actor)
    return len(rows)


def end_token(row: ApiToken, *, actor: User, team: Team | None = None) -> None:
    """Revoke a token and every token created with it, and record each. The caller has checked the permission."""
    if not tokens.revoke(row):
        return  # it ended a moment ago, with the token that it was created with
    details = TokenRevoked(user=row.user.username, lookup=row.lookup)
    audit.record(Action.TOKEN_REVOKED, actor=actor, subject=row, team=team, details=details)
    children = ApiToken.objects.select_for_update(of=("self",)).filter(parent=row, revoked_at=None)
    for child in children.select_related("user").order_by("pk"):
        end_token(child, actor=actor, team=_team_of(child))
