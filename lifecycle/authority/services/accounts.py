"""Accounts of people: their secrets, profiles, and who is an admin.

An admin never learns a password that stays: the person sets it with a link, or must change the generated one first.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zoneinfo
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from accounts.models import AccountLink, User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.audit.details_of_access import (
    LinkUsed,
    Profile,
    ProfileChanged,
    TokensEnded,
    UserCreated,
    UserSecret,
)
from lifecycle.authority import limiter, resets
from lifecycle.authority.identity import keep_mail
from lifecycle.authority.projection import project
from lifecycle.authority.rights import is_above_grants
from lifecycle.authority.services.sessions import drop_sessions
from lifecycle.authority.services.tokens import end_tokens_of
from lifecycle.core import clock, context
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.core.reasons import refuse_if

# No plus sign: it is reserved for the names of robots.
_USERNAME: Final = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_USERNAME_MAX: Final = 60  # characters
_FULL_NAME_MAX: Final = 120  # characters
_PASSWORD_BYTES: Final = 15  # 120 bits, 20 characters
_LINK_BYTES: Final = 32
# How audit events describe a password from a command or the demonstration.
OPERATOR_MADE: Final = "password, exempt: made by the operator"
LINK_LIVES: Final[Mapping[str, timedelta]] = {
    AccountLink.Kind.INVITATION: timedelta(days=7),
    AccountLink.Kind.RESET: timedelta(days=1),
}


@transaction.atomic
def create_person(
    *,
    actor: User,
    username: str,
    is_admin: bool = False,
    full_name: str = "",
    email: str = "",
    with_password: bool = False,
) -> tuple[User, str]:
    """Create an account and return (user, secret). The secret is shown once and cannot be read again.

    For an admin it is an invitation: a link with which the person sets the password. `with_password`, it is a generated
    password that must be changed before anything else. The system user (commands, the demonstration) gets a password
    that stays; the audit event says so.
    Raises NotPermitted unless `actor` is an admin, Malformed for an invalid name, or Conflict for a used name.
    """
    _require_admin(actor)
    if len(username) > _USERNAME_MAX or not _USERNAME.fullmatch(username):
        raise Malformed("Enter a user name of up to 60 lower-case letters and digits, with single . _ - between them.")
    user = User(username=username, is_superuser=is_admin, full_name=checked_name(full_name), email=checked_mail(email))
    user.set_unusable_password()
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"Account {username} already exists. Choose another name.") from None
    secret, text = _new_secret(user, actor=actor, kind=AccountLink.Kind.INVITATION, with_password=with_password)
    details = UserCreated(user=username, is_admin=is_admin, secret_kind=secret)
    audit.record(Action.USER_CREATED, actor=actor, subject=user, details=details)
    return user, text


def _new_secret(user: User, *, actor: User, kind: str, with_password: bool) -> tuple[str, str]:
    """Give the account a new secret, and return (its description for the audit log, its text).

    The old password and all earlier links stop working, and every session ends.
    """
    user.links.filter(ended_at=None).update(ended_at=clock.now())
    drop_sessions(user)
    is_exempt = actor.kind == User.Kind.SYSTEM
    if not is_exempt and not with_password:
        user.set_unusable_password()
        user.must_change_password, user.secret_seen_by = False, None
        user.save(update_fields=["password", "must_change_password", "secret_seen_by"])
        text = secrets.token_urlsafe(_LINK_BYTES)
        AccountLink.objects.create(
            user=user,
            kind=kind,
            secret_sha256=_hashed(text),
            made_by=actor,
            made_from=context.current().address,
            expires_at=clock.now() + LINK_LIVES[kind],
        )
        return "link", f"{settings.PUBLIC_URL}/account/link/{text}/"
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    user.set_password(password)
    user.must_change_password, user.secret_seen_by = not is_exempt, None if is_exempt else actor
    user.save(update_fields=["password", "must_change_password", "secret_seen_by"])
    return (OPERATOR_MADE if is_exempt else "password, must be changed"), password


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def link_for(text: str) -> AccountLink:
    """Return the live link with the text `text` and its user; raises NotFound for any other, used or expired one.

    A link ends with the account of the admin who created it.
    """
    rows = AccountLink.objects.select_related("user", "made_by").filter(
        secret_sha256=_hashed(text), ended_at=None, expires_at__gt=Now(), made_by__is_active=True, user__is_active=True
    )
    link = rows.first()
    if link is None:
        raise NotFound("This link has expired or was used already. Ask an admin for a new one.")
    return link


@transaction.atomic
def use_link(text: str, *, password: str) -> User:
    """Set the password of the link's account and return the user. The link ends. The caller has checked the password.

    The audit event says whether the link was used from the address where it was created. Raises NotFound.
    """
    AccountLink.objects.select_for_update().filter(secret_sha256=_hashed(text)).first()
    link = link_for(text)
    user = User.objects.select_for_update().get(pk=link.user_id)
    user.set_password(password)
    user.must_change_password, user.secret_seen_by = False, None
    user.save(update_fields=["password", "must_change_password", "secret_seen_by"])
    user.links.filter(ended_at=None).update(ended_at=clock.now())
    drop_sessions(user)
    resets.begin_again(user)
    address = context.current().address
    details = LinkUsed(
        user=user.username,
        kind=link.kind,
        made_by=link.made_by.username,
        same_address=address is not None and address == link.made_from,
    )
    audit.record(Action.USER_LINK_USED, actor=user, subject=user, details=details)
    events.publish(events.RightsChanged((user.pk,)))
    return user


@transaction.atomic
def note_password_changed(user: User, *, keeps_tokens: bool = False) -> None:
    """Record that a person changed their own password. From now on, only they know it.

    Every session ends, and every token unless they keep them: whoever knew the password could have made one. The page
    where it was changed begins a new session.
    """
    drop_sessions(user)
    ended = 0 if keeps_tokens else end_tokens_of(user, actor=user)
    if user.must_change_password:
        resets.begin_again(user)  # the generated password was used, by the person or by the admin who saw it
    User.objects.filter(pk=user.pk).update(must_change_password=False, secret_seen_by=None)
    user.must_change_password, user.secret_seen_by = False, None
    user.links.filter(ended_at=None).update(ended_at=clock.now())
    details = TokensEnded(user=user.username, tokens_ended=ended)
    audit.record(Action.USER_PASSWORD_CHANGED, actor=user, subject=user, details=details)
    events.publish(events.RightsChanged((user.pk,)))


@transaction.atomic
def reset_password(user_id: int, *, actor: User, with_password: bool = False) -> tuple[User, str]:
    """Reset the password of a person and return (user, secret), as `create_person` does. All sessions and tokens end.

    The person decides nothing for a while after it, and counts as one person with the actor for longer (`resets`).
    Raises NotFound, NotPermitted, or Conflict for one's own account and for a deactivated one.
    """
    user = _lock_person(user_id, actor)
    if user.pk == actor.pk:
        raise Conflict("You cannot reset your own password. Change it in the user menu.")
    if not user.is_active:
        raise Conflict(f"{user} is deactivated. Reactivate the account instead.")
    refuse_if(resets.why_reset(actor))
    secret, text = _new_secret(user, actor=actor, kind=AccountLink.Kind.RESET, with_password=with_password)
    resets.note_reset(user, actor=actor, kind=resets.Kind.PASSWORD)
    limiter.forgive(user.username)
    ended = end_tokens_of(user, actor=actor)
    details = UserSecret(user=user.username, secret_kind=secret, tokens_ended=ended)
    audit.record(Action.USER_PASSWORD_RESET, actor=actor, subject=user, details=details)
    events.publish(events.RightsChanged((user.pk,)))
    return user, text


@transaction.atomic
def set_admin(user_id: int, *, actor: User, is_admin: bool) -> User:
    """Make a person an admin, or end that. Takes effect with the next request.

    Raises NotFound, NotPermitted, or Conflict for the last admin, a deactivated account, and no change.
    """
    admins = _lock_admins(actor)
    user = _lock_person(user_id, actor)
    if not user.is_active:
        raise Conflict(f"{user} is deactivated. Reactivate the account first.")
    if user.is_superuser == is_admin:
        raise Conflict(f"{user} is {'already' if is_admin else 'not'} an admin.")
    if admins == {user.pk}:
        raise Conflict(f"{user} is the last admin. Make another user an admin first.")
    if is_admin:
        refuse_if(resets.why_reset(actor))
    user.is_superuser = is_admin
    user.save(update_fields=["is_superuser"])
    if is_admin:
        audit.record(Action.USER_ADMIN_GRANTED, actor=actor, subject=user, details=UserDetails(user=user.username))
    else:
        audit.record(Action.USER_ADMIN_REVOKED, actor=actor, subject=user, details=UserDetails(user=user.username))
    events.publish(events.RightsChanged((user.pk,)))
    return user


@transaction.atomic
def change_profile(*, actor: User, full_name: str, email: str, time_zone: str) -> User:
    """Change the actor's own name, mail and time zone. Another mail is not verified. Raises Malformed.

    A verified mail of before is kept: with another mail, the account does not become another person.
    """
    user = User.objects.select_for_update().get(pk=actor.pk)
    if time_zone not in zoneinfo.available_timezones():
        raise Malformed("Choose a time zone from the list, for example Europe/Berlin.")
    before = _profile(user)
    user.full_name, new_mail, user.time_zone = checked_name(full_name), checked_mail(email), time_zone
    if new_mail.lower() != user.email.lower():
        if user.email_verified_at is not None and user.email:
            keep_mail(user, user.email)
        user.email_verified_at = None
    user.email = new_mail
    if (after := _profile(user)) != before:
        user.save(update_fields=["full_name", "email", "email_verified_at", "time_zone"])
        details = ProfileChanged(user=user.username, before=before, after=after)
        audit.record(Action.USER_PROFILE_CHANGED, actor=actor, subject=user, details=details)
        events.publish(events.RightsChanged((user.pk,)))
    return user


@transaction.atomic
def verify_mail(user_id: int, *, actor: User) -> User:
    """Record that an admin confirmed that the mail of an account belongs to its person.

    Accounts that share a verified mail count as one person. Raises NotFound, NotPermitted, or Conflict without a mail,
    for a verified one, and for one's own account.
    """
    user = _lock_person(user_id, actor)
    if user.pk == actor.pk:
        raise Conflict("Another admin has to confirm your mail.")
    if not user.email or user.email_verified_at is not None:
        raise Conflict(f"{user} has no mail to confirm.")
    refuse_if(resets.why_reset(actor))
    user.email_verified_at = clock.now()
    user.save(update_fields=["email_verified_at"])
    audit.record(Action.USER_MAIL_VERIFIED, actor=actor, subject=user, details=UserDetails(user=user.username))
    events.publish(events.RightsChanged((user.pk,)))
    return user


def checked_name(text: str) -> str:
    """Return a display name without outer spaces; raises Malformed."""
    name = text.strip()
    if len(name) > _FULL_NAME_MAX or not name.isprintable():
        raise Malformed(f"Enter a name of up to {_FULL_NAME_MAX} characters.")
    return name


def checked_mail(text: str) -> str:
    """Return a mail address without outer spaces, or ""; raises Malformed."""
    mail = text.strip()
    try:
        if mail:
            validate_email(mail)
    except ValidationError:
        raise Malformed("Enter a mail address like kim@example.com.") from None
    return mail


def _profile(user: User) -> Profile:
    return Profile(name=user.full_name, mail=user.email, time_zone=user.time_zone)


@transaction.atomic
def deactivate(user_id: int, *, actor: User) -> User:
    """Deactivate a person's account: end its sessions, revoke its tokens, and stop counting its votes on open requests.

    The grants are kept for a reactivation. The password is removed too. Every Django session depends on it, so no old
    session works again after a reactivation.
    Raises NotFound, NotPermitted, or Conflict for one's own account, the last admin, and a deactivated account.
    """
    # Lock all admins first, in a fixed order. When two admins deactivate each other, the second one waits here, and is
    # then no longer an admin.
    admins = _lock_admins(actor)
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
    drop_sessions(user)
    end_tokens_of(user, actor=actor)
    project(user)  # the robots that depend on this account are suspended
    events.publish(events.RightsChanged((user.pk,)))
    audit.record(Action.USER_DEACTIVATED, actor=actor, subject=user, details=UserDetails(user=user.username))
    return user


@transaction.atomic
def reactivate(user_id: int, *, actor: User, with_password: bool = False) -> tuple[User, str]:
    """Reactivate a person's account and return (user, secret), as `create_person` does. Unexpired grants work again.

    Raises NotFound, NotPermitted, or Conflict for an active account.
    """
    user = _lock_person(user_id, actor)
    if user.is_active:
        raise Conflict(f"{user} is already active.")
    refuse_if(resets.why_reset(actor))
    user.is_active = True
    user.save(update_fields=["is_active"])
    secret, text = _new_secret(user, actor=actor, kind=AccountLink.Kind.INVITATION, with_password=with_password)
    resets.note_reset(user, actor=actor, kind=resets.Kind.PASSWORD)
    project(user)
    events.publish(events.RightsChanged((user.pk,)))
    details = UserSecret(user=user.username, secret_kind=secret, tokens_ended=0)  # they ended with the account
    audit.record(Action.USER_REACTIVATED, actor=actor, subject=user, details=details)
    return user, text


def _lock_admins(actor: User) -> set[int]:
    """Lock all active admins in a fixed order and return their ids. `actor` is read again, behind the lock."""
    rows = User.objects.select_for_update().filter(is_superuser=True, is_active=True, kind=User.Kind.PERSON)
    admins = {row.pk for row in rows.order_by("pk")}
    actor.refresh_from_db(fields=["is_active", "is_superuser"])
    return admins


def _require_admin(actor: User) -> None:
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can manage accounts. Ask an admin.")


def _lock_person(user_id: int, actor: User) -> User:
    _require_admin(actor)
    user = User.objects.select_for_update().filter(pk=user_id, kind=User.Kind.PERSON).first()
    if user is None:
        raise NotFound("Account not found.")
    return user
