"""Scheduled work of the API: delete stored responses of idempotent requests."""

from __future__ import annotations

from lifecycle.api import idempotency
from lifecycle.jobs.schedule import every


@every(3600, "forget-idempotency-keys")
def forget_idempotency_keys() -> None:
    """Delete the stored responses that are older than a day."""
    idempotency.forget_old()
