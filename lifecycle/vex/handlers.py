"""Decisions end by themselves."""

from __future__ import annotations

from lifecycle.jobs.schedule import every
from lifecycle.vex import services


@every(30, "vex")
def end_decisions() -> None:
    """End decisions whose time is over."""
    services.end_due()
