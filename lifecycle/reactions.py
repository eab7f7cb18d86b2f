"""What follows from what: the one file where sub-domains meet sideways, instead of signals.

A service that did something calls the function here that is named for the event, inside its own transaction; the
function only queues jobs, or calls another service's quick part.
"""

from __future__ import annotations


def connect() -> None:
    """Load every handler of jobs, so that a worker knows them."""
    from lifecycle.jobs import handlers  # noqa: PLC0415 -- needs the app registry

    handlers.load()
