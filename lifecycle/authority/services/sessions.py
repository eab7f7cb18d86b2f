"""End browser sessions: one of one's own, all others, or as an admin all of a person."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import SessionsRevoked
from lifecycle.authority.models import BrowserSession
from lifecycle.authority.rights import is_above_grants
from lifecycle.authority.sessions import sessions_of
from lifecycle.core.errors import NotFound, NotPermitted


@transaction.atomic
def end_session(public_id: UUID, *, actor: User) -> BrowserSession:
    """End one browser session of the actor, and return what it was; raises NotFound."""
    row = sessions_of(actor).select_for_update().filter(public_id=public_id).first()
    if row is None:
        raise NotFound("Session not found. It may have ended already.")
    _end([row], user=actor, actor=actor)
    return row


@transaction.atomic
def end_other_sessions(*, actor: User, except_key: str | None) -> int:
    """End every browser session of the actor but the one with the key `except_key`; return how many."""
    rows = list(sessions_of(actor).select_for_update().exclude(session_key=except_key or ""))
    _end(rows, user=actor, actor=actor)
    return len(rows)


@transaction.atomic
def end_sessions_of(user_id: int, *, actor: User) -> int:
    """End every browser session of a person, as an admin; return how many. Raises NotFound or NotPermitted."""
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can end the sessions of others. Ask an admin.")
    user = User.objects.filter(pk=user_id, kind=User.Kind.PERSON).first()
    if user is None:
        raise NotFound("Account not found.")
    rows = list(sessions_of(user).select_for_update())
    _end(rows, user=user, actor=actor)
    return len(rows)


def drop_sessions(user: User, *, except_key: str | None = None) -> None:
    """Delete the sessions of an account whose credentials changed. The event of that change says so."""
    rows = BrowserSession.objects.filter(user=user)
    (rows.exclude(session_key=except_key) if except_key else rows).delete()


def _end(rows: list[BrowserSession], *, user: User, actor: User) -> None:
    if not rows:
        return
    BrowserSession.objects.filter(pk__in=[row.pk for row in rows]).delete()
    details = SessionsRevoked(user=user.username, count=len(rows))
    audit.record(Action.SESSION_REVOKED, actor=actor, subject=user, details=details)
