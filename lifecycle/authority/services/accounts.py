"""Accounts of people: made, ended and let in again by admins. Passwords are generated, and shown once."""

from __future__ import annotations

import re
import secrets
from typing import Final

from django.db import IntegrityError, transaction

from accounts.models import ApiToken, User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, UserCreated, UserDetails
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.authority.services.tokens import end_token
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted

# No plus: that is how robots are called.
_USERNAME: Final = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_USERNAME_MAX: Final = 60  # characters
_PASSWORD_BYTES: Final = 15  # 120 bits, 20 characters


@transaction.atomic
def create_person(*, actor: User, username: str, is_admin: bool = False) -> tuple[User, str]:
    """Make an account and return (user, password); the password is generated and never to be had again.

    Raises NotPermitted for who is no admin, Malformed, or Conflict for a taken name.
    """
    _require_admin(actor)
    if len(username) > _USERNAME_MAX or not _USERNAME.fullmatch(username):
        raise Malformed("A user name has up to 60 lower-case letters and digits, with single . _ - between them.")
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    user = User(username=username, is_superuser=is_admin)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"There is an account {username} already.") from None
    details = UserCreated(user=username, is_admin=is_admin)
    audit.record(Action.USER_CREATED, actor=actor, subject=user, details=details)
    return user, password


@transaction.atomic
def deactivate(user_id: int, *, actor: User) -> User:
    """End a person's access now: sessions, tokens, and votes that were still to count; the grants stay for later.

    The password goes too, since that is what every session of Django's hangs on: none revives with the account.
    Raises NotFound, NotPermitted, or Conflict for oneself, for the last admin, and for who has ended already.
    """
    # All admins first, in one order: two of them ending each other wait here, and the second is no admin any more.
    rows = User.objects.select_for_update().filter(is_superuser=True, is_active=True, kind=User.Kind.PERSON)
    admins = {row.pk for row in rows.order_by("pk")}
    actor.refresh_from_db(fields=["is_active", "is_superuser"])
    user = _lock_person(user_id, actor)
    if user.pk == actor.pk:
        raise Conflict("You cannot end your own account; ask another admin.")
    if not user.is_active:
        raise Conflict(f"{user} is not active.")
    if admins == {user.pk}:
        raise Conflict(f"{user} is the last admin; make another one first.")
    user.is_active = False
    user.set_unusable_password()
    user.save(update_fields=["is_active", "password"])
    for row in ApiToken.objects.select_for_update().filter(user=user, revoked_at=None).order_by("pk"):
        end_token(row, actor=actor)
    events.publish(events.RightsChanged((user.pk,)))
    audit.record(Action.USER_DEACTIVATED, actor=actor, subject=user, details=UserDetails(user=user.username))
    return user


@transaction.atomic
def reactivate(user_id: int, *, actor: User) -> tuple[User, str]:
    """Let a person in again, with a new password and the grants that are still live; returns (user, password).

    Raises NotFound, NotPermitted, or Conflict for an active account.
    """
    user = _lock_person(user_id, actor)
    if user.is_active:
        raise Conflict(f"{user} is active.")
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    user.is_active = True
    user.set_password(password)
    user.save(update_fields=["is_active", "password"])
    events.publish(events.RightsChanged((user.pk,)))
    audit.record(Action.USER_REACTIVATED, actor=actor, subject=user, details=UserDetails(user=user.username))
    return user, password


def _require_admin(actor: User) -> None:
    if not is_above_grants(actor):
        raise NotPermitted("Only an admin looks after accounts; ask one.")


def _lock_person(user_id: int, actor: User) -> User:
    _require_admin(actor)
    user = User.objects.select_for_update().filter(pk=user_id, kind=User.Kind.PERSON).first()
    if user is None:
        raise NotFound("There is no such account.")
    return user
