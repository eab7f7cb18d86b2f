"""Decisions end by themselves, and attestations of images are read."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.schedule import every
from lifecycle.vex import attached, services


@every(30, "vex")
def end_decisions() -> None:
    """End decisions whose time is over."""
    services.end_due()


@subscribe(events.AttestationsRead)
def read_attestations(event: events.AttestationsRead) -> None:
    """Store the VEX attestations of an image."""
    attached.sync(event.image_id)


@subscribe(events.TrustChanged)
def trust_again(event: events.TrustChanged) -> None:
    """Look again at whom to trust."""
    attached.trust_again()
