"""Waivers end by themselves, people are told about them, and external checks are asked."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.schedule import every
from lifecycle.policies import asking, waivers
from lifecycle.policies.kinds import ASK
from lifecycle.policies.telling import tell_about_waiver


@every(60, "waivers")
def end_waivers() -> None:
    """End waivers whose time is over or whose fix shipped, and record that others end soon."""
    waivers.end_waivers()


@handler(ASK)
def ask(run: JobRun) -> None:
    """Ask an external check about an image. Without an answer, whoever judges the image queues it again."""
    run.check()
    reply = asking.ask(run.job.subject_id)
    run.log(reply.words if reply is not None else "Nothing to do. The check was deleted.")


@subscribe(events.AuditRecorded)
def tell_people(event: events.AuditRecorded) -> None:
    """Tell those who can decide about a waiver, and its requester, what happened."""
    tell_about_waiver(event)
