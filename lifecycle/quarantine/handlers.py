"""The job handler of this package, and what it does when images come into repositories."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.quarantine.kinds import WITHDRAW
from lifecycle.quarantine.withdrawing import run_withdrawal, undo_pushes


@handler(WITHDRAW)
def withdraw(run: JobRun) -> None:
    """Withdraw a quarantined image from the managed registry, or put it back."""
    run_withdrawal(run)


@subscribe(events.PlacesChanged)
def undo_push(event: events.PlacesChanged) -> None:
    """Withdraw an image again that somebody pushed while a quarantine withdraws it."""
    undo_pushes(event.image_ids)
