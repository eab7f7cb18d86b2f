"""Ask for the password again before an act that one person can do alone; or, without one, for another proof."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter
from lifecycle.authority.proofs import why_not_confirmed
from lifecycle.authority.second_factors import has_factor
from lifecycle.core import context
from lifecycle.core.errors import ConfirmationRequired, NotPermitted, TooManyAttempts, WrongPassword
from lifecycle.core.reasons import Reason, refuse_if


def why_not_without_password(actor: User) -> Reason | None:
    """Return why a person without a password must first prove in another way who they are; None for all others."""
    if actor.has_usable_password() or why_not_confirmed(has_factor=has_factor(actor)) is None:
        return None
    if context.current().token_lookup:
        return Reason("Your account has no password, and a token proves too little. Do it in the browser.",
                      ConfirmationRequired)  # fmt: skip
    return Reason("Confirm that it is you first: your account has no password to ask for.", ConfirmationRequired)


def confirm_password(actor: User, password: str) -> None:
    """Check the password of `actor` again, with the limits of the sign-in. Call it outside a transaction.

    Otherwise a refusal would undo the count of the attempt. Without a password, a proof of the last minutes counts:
    with a second factor, or else with a provider. Raises WrongPassword, TooManyAttempts, ConfirmationRequired, and
    NotPermitted for a robot.
    """
    if not actor.is_person:
        raise NotPermitted("Only people can do this: it asks for a password.")
    if not actor.has_usable_password():
        refuse_if(why_not_without_password(actor))
        return
    attempt = limiter.reserve(actor.username, context.current().address)
    if attempt is None:
        raise TooManyAttempts(
            "Too many wrong passwords for this account or address. Wait five minutes, then try again."
        )
    if actor.check_password(password):
        attempt.succeeded()
        return
    with transaction.atomic():
        audit.record(
            Action.SESSION_REFUSED, actor=None, subject=actor, outcome=AuditEvent.Outcome.DENIED,
            details=UserDetails(user=actor.username),
        )  # fmt: skip
    raise WrongPassword("The password is wrong. Nothing was changed.")
