"""Scheduled work: waivers end by themselves. People are told about them."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.schedule import every
from lifecycle.policies import waivers
from lifecycle.policies.telling import tell_about_waiver


@every(60, "waivers")
def end_waivers() -> None:
    """End waivers whose time is over or whose fix shipped, and record that others end soon."""
    waivers.end_waivers()


@subscribe(events.AuditRecorded)
def tell_people(event: events.AuditRecorded) -> None:
    """Tell those who can decide about a waiver, and its requester, what happened."""
    tell_about_waiver(event)
