"""The handler functions of job kinds, and the JobRun that each handler receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from django.db import transaction

from lifecycle.jobs import kinds, services
from lifecycle.jobs.kinds import GaveUp, Kind
from lifecycle.jobs.models import Job


class Postponed(Exception):  # not an error: the job waits for something that is not ready
    """Raised by a handler to run its job later, without counting the attempt."""

    def __init__(self, why: str, *, seconds: float = 2.0) -> None:
        super().__init__(why)
        self.why = why
        self.seconds = seconds


class JobRun:
    """One attempt at one job. This worker holds the job until the attempt ends or the lease is lost."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def check(self) -> None:
        """Renew the lease; raises LeaseLost when another worker has the job."""
        services.renew(self.job)

    def progress(self, done: int, total: int | None = None, text: str = "") -> None:
        """Store the progress that the job page shows; raises LeaseLost."""
        services.report_progress(self.job, done, total, text)

    def log(self, text: str) -> None:
        """Add lines to the log on the job page."""
        services.append_log(self.job, text)

    @contextmanager
    def fenced(self) -> Iterator[Job]:
        """Open a transaction that can only commit while this worker holds the job; raises LeaseLost."""
        with transaction.atomic():
            yield services.lock_held(self.job)
            services.extend_lease(self.job)


Handler = Callable[[JobRun], None]

_HANDLERS: Final[dict[str, Handler]] = {}


def handler(kind: Kind, *, gave_up: GaveUp | None = None) -> Callable[[Handler], Handler]:
    """Register the decorated function for `kind`.

    `gave_up(job)` runs in a transaction when the job fails without further attempts. It updates the rows that wait
    for the job.
    """

    def register(function: Handler) -> Handler:
        _HANDLERS[kind.name] = function
        if gave_up is not None:
            kinds.on_give_up(kind, gave_up)
        return function

    return register


def handler_of(kind: str) -> Handler:
    """Return the handler of `kind`; raises KeyError when no package registered one."""
    return _HANDLERS[kind]
