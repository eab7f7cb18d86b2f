"""Decisions by the key in an address: check that the actor can see them."""

from __future__ import annotations

from accounts.models import User
from lifecycle.admission.models import AdmissionDecision
from lifecycle.admission.queries import decisions_visible_to
from lifecycle.core.errors import NotFound


def decision_for(actor: User, key: str) -> AdmissionDecision:
    """Return a decision; raises NotFound, with the same words for one that is hidden or not recorded yet."""
    row = decisions_visible_to(actor).filter(key=key).first()
    if row is None:
        raise NotFound(
            "This decision is not recorded yet, or you don't have access. Decisions are recorded within seconds."
        )
    return row
