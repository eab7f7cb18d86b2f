"""Locks on a number, for work that only one may do at a time, and that others wait for in a queue."""

from __future__ import annotations

from typing import Final

from django.db import connection

# A quarter of an hour: no batch of a synchronisation or an import takes that long.
_WAIT: Final = """
SET LOCAL lock_timeout = '15min'; SELECT pg_advisory_xact_lock(%s); SET LOCAL lock_timeout TO DEFAULT
"""


def wait_for(number: int) -> None:
    """Take the lock on `number` until the transaction ends; who holds it may take its time.

    The five seconds that the settings allow for a lock are for rows, where a longer wait is a jam. Here it is a queue:
    a synchronisation of advisories must not cost the jobs behind it their attempts, nor end a second import.
    """
    with connection.cursor() as cursor:
        cursor.execute(_WAIT, [number])
