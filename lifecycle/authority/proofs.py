"""How lately the person of this request proved who they are. The middleware of pages notes it in the context.

Services ask here, so that a page, a form and a service agree. A worker, a command and a token never prove anything.
"""

from __future__ import annotations

from typing import Final

from lifecycle.core import clock, context
from lifecycle.core.errors import ConfirmationRequired
from lifecycle.core.reasons import Reason

FRESH_S: Final = 5 * 60  # to change how one signs in
STEP_UP_S: Final = 15 * 60  # to approve into production (ASVS 7.5.3)


def was_confirmed(*, strongly: bool, within_s: int) -> bool:
    """Return whether a proof of identity in this browser session is at most `within_s` seconds old.

    `strongly`: with a second factor. A time in the future is none: the clock was wrong then.
    """
    request = context.current()
    if request.token_lookup:
        return False
    at = request.strong_at if strongly else request.confirmed_at
    age = clock.now().timestamp() - at
    return at > 0 and -5 <= age <= within_s


def why_not_confirmed(*, has_factor: bool) -> Reason | None:
    """Return why a person must confirm who they are before they change how they sign in, None when they just did."""
    if was_confirmed(strongly=has_factor, within_s=FRESH_S):
        return None
    return Reason("Confirm that it is you first.", ConfirmationRequired)
