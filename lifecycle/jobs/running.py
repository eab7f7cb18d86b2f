"""One attempt at one job, from claim to end. Only this module turns errors of a job into its state."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from lifecycle.core.errors import LeaseLost, LifecycleError, RegistryUnavailable
from lifecycle.core.scratch import disk_full_in
from lifecycle.jobs import handlers, services
from lifecycle.jobs.kinds import gave_up
from lifecycle.jobs.models import Job

_DATABASE_TRIES: Final = 10  # with one second between them

log = structlog.get_logger(__name__)


def worker_name(pid: int | None = None) -> str:
    """Return the name of a process on this host, by default of this process: host and pid."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"[:120]


def run(job_id: int) -> None:
    """Run the job if this worker can claim it. A second call is safe, as only one claim works."""
    job = services.claim(job_id, worker=worker_name())
    if job is None:
        return
    with structlog.contextvars.bound_contextvars(job_id=job.pk, job_kind=job.kind), _heartbeat(job):
        _attempt(job)


def _attempt(job: Job) -> None:
    try:
        handlers.handler_of(job.kind)(handlers.JobRun(job))
        services.succeed(job)
    except LeaseLost:
        log.warning("job_lease_lost")
    except handlers.Postponed as postponed:
        services.postpone(job, seconds=postponed.seconds, why=postponed.why)
    except RegistryUnavailable as error:
        _failed(job, error.error_code, str(error), is_transient=True)
    except (OperationalError, InterfaceError) as error:
        if _is_database_gone():
            _give_back(job)
        else:  # for example a lock timeout or a full disk
            _failed(job, "database_unavailable", str(error), is_transient=True)
    except Exception as error:  # noqa: BLE001 -- the edge of a worker: every error becomes a state of the job
        _failed_by(job, error)


def _failed_by(job: Job, error: Exception) -> None:
    if (full := disk_full_in(error)) is not None:  # also for an error that wraps it: no fault of what was read
        _failed(job, full.error_code, full.message, is_transient=True)
    elif isinstance(error, LifecycleError):
        _failed(job, error.error_code, error.message, is_transient=False)
    else:
        log.exception("job_crashed", exc_info=error)
        _failed(job, "crashed", f"{type(error).__name__}: {error}", is_transient=True)


def _is_database_gone() -> bool:
    """Return whether the connection of this process broke, which is not a fault of the job."""
    return connection.connection is None or bool(connection.connection.closed)


def _give_back(job: Job) -> None:
    """Release the job for a new attempt soon, without counting this one.

    When the database does not respond, the lease expires and the job runs again.
    """
    log.warning("job_lost_its_database")
    for _ in range(_DATABASE_TRIES):
        connection.close()
        try:
            services.postpone(job, seconds=1, why="The connection to the database was lost.")
        except LeaseLost:
            log.warning("job_lease_lost")
        except (OperationalError, InterfaceError):
            time.sleep(1)
            continue
        return


def _failed(job: Job, code: str, message: str, *, is_transient: bool) -> None:
    log.warning("job_failed", code=code, attempt=job.attempts)
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    try:
        with transaction.atomic():
            if services.fail(job, code=code, message=message, is_transient=is_transient):
                job.refresh_from_db()  # loads the stored reason
                gave_up(job)
    except LeaseLost:
        log.warning("job_lease_lost")


@contextmanager
def _heartbeat(job: Job) -> Iterator[None]:
    """While the handler works, renew the lease in a separate thread, at every third of its duration."""
    stop = threading.Event()

    def beat() -> None:
        try:
            while not stop.wait(settings.JOB_LEASE_S / 3):
                try:
                    services.renew(job)
                except LeaseLost:
                    return
                except (OperationalError, InterfaceError):
                    connection.close()  # the next beat opens a new one
        finally:
            connection.close()  # the connection of this thread

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
