"""Ask for the password again before an act that one person can do alone."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter
from lifecycle.core import context
from lifecycle.core.errors import NotPermitted, TooManyAttempts, WrongPassword


def confirm_password(actor: User, password: str) -> None:
    """Check the password of `actor` again, with the limits of the sign-in. Call it outside a transaction.

    Otherwise a refusal would undo the count of the attempt. Raises WrongPassword, TooManyAttempts, and NotPermitted
    for a robot.
    """
    if not actor.is_person:
        raise NotPermitted("Only people can do this: it asks for a password.")
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
