"""Advisory locks on a number, for work that only one process can do at a time while others wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import connection

# 15 minutes: no batch of a synchronisation or an import takes that long.
_WAIT: Final = """
SET LOCAL lock_timeout = '15min'; SELECT pg_advisory_xact_lock(%s); SET LOCAL lock_timeout TO DEFAULT
"""


def share(number: int) -> None:
    """Take a share of the lock on `number` until the transaction ends: many can, while nobody has it for themselves."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [number])


def try_share(number: int) -> bool:
    """Take a share of the lock on `number` until the transaction ends, or return False at once: it is held alone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock_shared(%s)", [number])
        is_shared: bool = cursor.fetchone()[0]
    return is_shared


def wait_for(number: int) -> None:
    """Take the lock on `number` until the transaction ends, and wait up to 15 minutes for it.

    The settings allow five seconds for a lock. That limit is for rows, where a longer wait is a problem. Here, waiting
    is normal: a synchronisation of advisories must not use up the attempts of waiting jobs, and must not end a second
    import.
    """
    with connection.cursor() as cursor:
        cursor.execute(_WAIT, [number])


@contextmanager
def alone(name: str) -> Iterator[bool]:
    """Hold the lock `name` for a block without a transaction; yield False at once when another process has it.

    PostgreSQL releases it when the connection ends, so that a killed worker holds nothing.
    """
    is_held = take(name)
    try:
        yield is_held
    finally:
        if is_held:
            release(name)


def take(name: str) -> bool:
    """Take the lock `name` of `alone` until `release`, or return False at once when another process has it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 7009))", [name])
        is_held: bool = cursor.fetchone()[0]
    return is_held


def release(name: str) -> None:
    """Release a lock that this connection took."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 7009))", [name])
