"""Scheduled tasks of this package."""

from __future__ import annotations

from lifecycle.jobs.schedule import every
from lifecycle.keyless import services


@every(3600, "forget-exchanges")
def forget_exchanges() -> None:
    """Delete identity tokens that were exchanged and have expired, and the tokens that came of them."""
    services.forget_old()
