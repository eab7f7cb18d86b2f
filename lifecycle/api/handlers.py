"""What is due by the clock in the API: its memory of requests is tidied."""

from __future__ import annotations

from lifecycle.api import idempotency
from lifecycle.jobs.schedule import every


@every(3600, "forget-idempotency-keys")
def forget_idempotency_keys() -> None:
    """Drop the answers that are older than a day."""
    idempotency.forget_old()
