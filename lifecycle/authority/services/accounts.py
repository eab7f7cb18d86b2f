"""Accounts of people. Admins create, deactivate and reactivate them. Passwords are generated and shown once."""

from __future__ import annotations

import re
import secrets
from typing import Final

from django.db import IntegrityError, transaction

from accounts.models import ApiToken, User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, UserCreated, UserDetails
from lifecycle.authority.projection import project
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.authority.services.tokens import end_token
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted

# No plus sign: it is reserved for the names of robots.
_USERNAME: Final = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_USERNAME_MAX: Final = 60  # characters
_PASSWORD_BYTES: Final = 15  # 120 bits, 20 characters


@transaction.atomic
def create_person(*, actor: User, username: str, is_admin: bool = False) -> tuple[User, str]:
    """Create an account and return (user, password). The password is generated and cannot be read again.

    Raises NotPermitted unless `actor` is an admin, Malformed for an invalid name, or Conflict for a used name.
    """
    _require_admin(actor)
    if len(username) > _USERNAME_MAX or not _USERNAME.fullmatch(username):
        raise Malformed("Enter a user name of up to 60 lower-case letters and digits, with single . _ - between them.")
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    user = User(username=username, is_superuser=is_admin)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"Account {username} already exists. Choose another name.") from None
    details = UserCreated(user=username, is_admin=is_admin)
    audit.record(Action.USER_CREATED, actor=actor, subject=user, details=details)
    return user, password


@transaction.atomic
def deactivate(user_id: int, *, actor: User) -> User:
    """Deactivate a person's account: end its sessions, revoke its tokens, and stop counting its votes on open requests.

    The grants are kept for a reactivation. The password is removed too. Every Django session depends on it, so no old
    session works again after a reactivation.
    Raises NotFound, NotPermitted, or Conflict for one's own account, the last admin, and a deactivated account.
    """
    # Lock all admins first, in a fixed order. When two admins deactivate each other, the second one waits here, and is
    # then no longer an admin.
    rows = User.objects.select_for_update().filter(is_superuser=True, is_active=True, kind=User.Kind.PERSON)
    admins = {row.pk for row in rows.order_by("pk")}
    actor.refresh_from_db(fields=["is_active", "is_superuser"])
    user = _lock_person(user_id, actor)
    if user.pk == actor.pk:
        raise Conflict("You cannot deactivate your own account. Ask another admin.")
    if not user.is_active:
        raise Conflict(f"{user} is already deactivated.")
    if admins == {user.pk}:
        raise Conflict(f"{user} is the last admin. Create another admin first.")
    user.is_active = False
    user.set_unusable_password()
    user.save(update_fields=["is_active", "password"])
    for row in ApiToken.objects.select_for_update().filter(user=user, revoked_at=None).order_by("pk"):
        end_token(row, actor=actor)
    project(user)  # the robots that depend on this account are suspended
    events.publish(events.RightsChanged((user.pk,)))
    audit.record(Action.USER_DEACTIVATED, actor=actor, subject=user, details=UserDetails(user=user.username))
    return user


@transaction.atomic
def reactivate(user_id: int, *, actor: User) -> tuple[User, str]:
    """Reactivate a person's account with a new password and return (user, password). Unexpired grants work again.

    Raises NotFound, NotPermitted, or Conflict for an active account.
    """
    user = _lock_person(user_id, actor)
    if user.is_active:
        raise Conflict(f"{user} is already active.")
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    user.is_active = True
    user.set_password(password)
    user.save(update_fields=["is_active", "password"])
    project(user)
    events.publish(events.RightsChanged((user.pk,)))
    audit.record(Action.USER_REACTIVATED, actor=actor, subject=user, details=UserDetails(user=user.username))
    return user, password


def _require_admin(actor: User) -> None:
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can manage accounts. Ask an admin.")


def _lock_person(user_id: int, actor: User) -> User:
    _require_admin(actor)
    user = User.objects.select_for_update().filter(pk=user_id, kind=User.Kind.PERSON).first()
    if user is None:
        raise NotFound("Account not found.")
    return user
