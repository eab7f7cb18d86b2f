"""Decisions end by themselves, people are told about them, and attestations of images are read."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.schedule import every
from lifecycle.vex import attached, services
from lifecycle.vex.models import VexStatement
from lifecycle.vex.telling import tell_about_decision


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
    """Look again at whom to trust: signers of documents, and owners of bases, who decide for what is built on them."""
    attached.trust_again()
    decisions = VexStatement.objects.filter(state=VexStatement.State.LIVE, document=None).exclude(scope="all")
    if ids := tuple(decisions.order_by("pk").values_list("pk", flat=True)):
        events.publish(events.VexChanged(ids))


@subscribe(events.AuditRecorded)
def tell_people(event: events.AuditRecorded) -> None:
    """Tell those who can approve a decision, and its author, what happened."""
    tell_about_decision(event)
