"""Set up and remove second factors. Each change ends the other sessions of the account, and is told to its person.

The person must have proved who they are a moment ago: with a second factor, if they have one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from django.db import IntegrityError, transaction

from accounts.models import User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.audit.details_of_access import FactorDetails, RecoveryCodeUsed, SessionConfirmed, TokensEnded
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter, resets
from lifecycle.authority.models import Passkey, RecoveryCode, TotpSecret
from lifecycle.authority.proofs import why_not_confirmed
from lifecycle.authority.rights import is_above_grants
from lifecycle.authority.second_factors import (
    Factors,
    factors_of,
    finish_passkey,
    has_factor,
    is_factor_needed,
    step_of_code,
    write_recovery_codes,
)
from lifecycle.authority.services.sessions import drop_sessions
from lifecycle.authority.services.tokens import end_tokens_of
from lifecycle.core import sealing
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.core.reasons import Reason, refuse_if

PASSKEYS_MAX: Final = 20  # of one person
_NAME_MAX: Final = 60  # characters
TOTP, PASSKEY = "totp", "passkey"


def why_not_change_factors(actor: User) -> Reason | None:
    """Return why the person cannot change their second factors now."""
    if not actor.is_person:
        return Reason("Only people have second factors. A robot signs in with tokens.")
    return why_not_confirmed(has_factor=has_factor(actor))


def why_not_remove_factor(actor: User, factors: Factors) -> Reason | None:
    """Return why the person cannot remove one of `factors`: it is the last one, and required."""
    count = len(factors.passkeys) + (factors.totp is not None)
    if count == 1 and is_factor_needed(actor):
        return Reason("Your role requires a second factor. Set up another one first.", Conflict)
    return None


@transaction.atomic
def add_totp(*, actor: User, secret: str, code: str, key: str | None) -> list[str]:
    """Set up an authenticator app that shows `code` now. Return new recovery codes if the person had none, else [].

    `key` is the key of the session that stays. Raises ConfirmationRequired, Malformed for a wrong code, or Conflict.
    """
    user = _lock(actor)
    step = step_of_code(secret, "".join(code.split()))
    if step is None:
        raise Malformed("The code is wrong. Enter the six digits that the app shows now, and check its clock.")
    if TotpSecret.objects.filter(user=user).exists():
        raise Conflict("You have an authenticator app. Remove it before you set up another one.")
    row = TotpSecret.objects.create(user=user, last_step=step)
    row.secret_sealed = sealing.seal(secret, row, "secret_sealed")
    row.save(update_fields=["secret_sealed"])
    details = FactorDetails(user=user.username, kind=TOTP, name="", key_sha256="")
    audit.record(Action.SECOND_FACTOR_ADDED, actor=actor, subject=user, details=details)
    return _added(user, key)


@transaction.atomic
def add_passkey(
    *, actor: User, name: str, state: Mapping[str, Any], response: object, key: str | None
) -> tuple[Passkey, list[str]]:
    """Add the passkey that the browser made for `state`. Return (it, new recovery codes or []).

    Raises ConfirmationRequired, Malformed, or Conflict for a known one.
    """
    user = _lock(actor)
    name = name.strip()
    if not name or len(name) > _NAME_MAX or not name.isprintable():
        raise Malformed(f"Enter a name of up to {_NAME_MAX} characters, for example the device.")
    if Passkey.objects.filter(user=user).count() >= PASSKEYS_MAX:
        raise Conflict(f"You have {PASSKEYS_MAX} passkeys. Remove one first.")
    made = finish_passkey(state, response)
    try:
        with transaction.atomic():
            row = Passkey.objects.create(
                user=user, name=name, credential_id=made.credential_id, public_key=made.public_key,
                sign_count=made.sign_count,
            )  # fmt: skip
    except IntegrityError:
        raise Conflict("This passkey is known already.") from None
    audit.record(Action.SECOND_FACTOR_ADDED, actor=actor, subject=user, details=_details(row, user))
    return row, _added(user, key)


@transaction.atomic
def remove_totp(*, actor: User, key: str | None) -> None:
    """Remove the person's authenticator app. Raises ConfirmationRequired, NotFound, or Conflict for a required one."""
    user = _lock(actor)
    factors = factors_of(user)
    if factors.totp is None:
        raise NotFound("You have no authenticator app.")
    refuse_if(why_not_remove_factor(user, factors))
    factors.totp.delete()
    details = FactorDetails(user=user.username, kind=TOTP, name="", key_sha256="")
    audit.record(Action.SECOND_FACTOR_REMOVED, actor=actor, subject=user, details=details)
    _removed(user, key)


@transaction.atomic
def remove_passkey(passkey_id: int, *, actor: User, key: str | None) -> Passkey:
    """Remove one of the person's passkeys, and return what it was. Raises as `remove_totp` does."""
    user = _lock(actor)
    factors = factors_of(user)
    row = next((passkey for passkey in factors.passkeys if passkey.pk == passkey_id), None)
    if row is None:
        raise NotFound("Passkey not found, or you don't have access.")
    refuse_if(why_not_remove_factor(user, factors))
    Passkey.objects.filter(pk=row.pk).delete()
    audit.record(Action.SECOND_FACTOR_REMOVED, actor=actor, subject=user, details=_details(row, user))
    _removed(user, key)
    return row


@transaction.atomic
def make_recovery_codes(*, actor: User, key: str | None) -> list[str]:
    """Replace the person's recovery codes, and return the new ones. Raises ConfirmationRequired, or Conflict."""
    user = _lock(actor)
    if not has_factor(user):
        raise Conflict("Set up an authenticator app or a passkey first.")
    codes = write_recovery_codes(user)
    audit.record(Action.SECOND_FACTOR_CODES_MADE, actor=actor, subject=user, details=UserDetails(user=user.username))
    drop_sessions(user, except_key=key)
    return codes


@transaction.atomic
def reset_factors(user_id: int, *, actor: User) -> User:
    """Remove every second factor of a person who lost them, as an admin or an operator. All sessions and tokens end.

    Whoever gets in with the password alone can then set up a new one: an admin should reset the password as well if it
    may be known, and the person decides nothing for a while (`resets`). Raises NotFound, NotPermitted, or Conflict.
    """
    if not is_above_grants(actor) and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("Only admins can reset second factors. Ask an admin.")
    user = User.objects.select_for_update().filter(pk=user_id, kind=User.Kind.PERSON).first()
    if user is None:
        raise NotFound("Account not found.")
    if user.pk == actor.pk:
        raise Conflict("Another admin has to reset your second factors. You can change them on your account page.")
    if not has_factor(user):
        raise Conflict(f"{user} has no second factor.")
    refuse_if(resets.why_reset(actor))
    TotpSecret.objects.filter(user=user).delete()
    Passkey.objects.filter(user=user).delete()
    RecoveryCode.objects.filter(user=user).delete()
    drop_sessions(user)
    resets.note_reset(user, actor=actor, kind=resets.Kind.FACTORS)
    limiter.forgive(user.username)
    details = TokensEnded(user=user.username, tokens_ended=end_tokens_of(user, actor=actor))
    audit.record(Action.SECOND_FACTOR_RESET, actor=actor, subject=user, details=details)
    events.publish(events.RightsChanged((user.pk,)))  # requests are judged again without the votes of the person
    return user


@transaction.atomic
def note_confirmed(user: User, kind: str) -> None:
    """Record that a person proved again who they are. A recovery code is one less."""
    note_recovery_code(user, kind)
    details = SessionConfirmed(user=user.username, kind=kind)
    audit.record(Action.SESSION_CONFIRMED, actor=user, subject=user, details=details)


@transaction.atomic
def note_recovery_code(user: User, kind: str) -> None:
    """Record the use of a recovery code, if `kind` is that of one."""
    if kind == "recovery":
        left = RecoveryCode.objects.filter(user=user, used_at=None).count()
        details = RecoveryCodeUsed(user=user.username, left=left)
        audit.record(Action.SECOND_FACTOR_CODE_USED, actor=user, subject=user, details=details)


@transaction.atomic
def note_refused(user: User) -> None:
    """Record a wrong second factor."""
    audit.record(
        Action.SECOND_FACTOR_REFUSED, actor=None, subject=user, outcome=AuditEvent.Outcome.DENIED,
        details=UserDetails(user=user.username),
    )  # fmt: skip


def _lock(actor: User) -> User:
    """Return the locked account, so that two requests cannot both remove the last but one factor."""
    user = User.objects.select_for_update().get(pk=actor.pk)
    refuse_if(why_not_change_factors(user))
    return user


def _details(row: Passkey, user: User) -> FactorDetails:
    fingerprint = hashlib.sha256(bytes(row.public_key)).hexdigest()
    return FactorDetails(user=user.username, kind=PASSKEY, name=row.name, key_sha256=fingerprint)


def _added(user: User, key: str | None) -> list[str]:
    drop_sessions(user, except_key=key)
    if RecoveryCode.objects.filter(user=user, used_at=None).exists():
        return []
    return write_recovery_codes(user)


def _removed(user: User, key: str | None) -> None:
    drop_sessions(user, except_key=key)
    if not has_factor(user):
        RecoveryCode.objects.filter(user=user).delete()
