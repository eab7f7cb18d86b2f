"""What changed in rights since somebody last looked, for processes that keep rights in memory (docs/adr/0018).

Triggers write a row for each change, in its transaction. A reader remembers PostgreSQL's snapshot of its last look, and
reads the rows that this snapshot could not see. So no change is missed, in whatever order transactions commit, and no
writer waits for another one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from django.db import connection
from django.db.models.functions import Now

from lifecycle.authority.models import PermissionChange

KEEP: Final = timedelta(days=1)  # longer than any transaction runs
LOOK_WITHIN_S: Final = KEEP.total_seconds() / 2  # who has not looked for so long starts anew


class Kind(StrEnum):
    """What a change is about; the key is the id of the row, or the name of the repository."""

    ALL = "*"  # teams, roles, environments, registries: everything may be different
    USER = "u"  # an account, or who is responsible for a robot
    TOKEN = "t"  # noqa: S105 -- no password
    GRANTS = "g"  # the grants of a user, without a key of any user
    REPOSITORY = "r"


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look."""

    snapshot: str  # as PostgreSQL prints it: the argument of the next look
    at: float  # the database's clock, in seconds since 1970
    changed: tuple[str, ...]  # kind and key of each change since the last look, as one text


_LOOK: Final = """
SELECT pg_current_snapshot()::text, extract(epoch from statement_timestamp())::float8,
    (SELECT json_agg(kind || key)::text FROM lifecycle_permissionchange
     WHERE transaction >= %s AND NOT pg_visible_in_snapshot(transaction::text::xid8, %s::pg_snapshot))
"""
_FIRST: Final = "SELECT pg_current_snapshot()::text, extract(epoch from statement_timestamp())::float8, NULL"


def look(last: str) -> Look:
    """Return what was committed since the look with the snapshot `last`; "" for a first look, which lists nothing."""
    with connection.cursor() as cursor:
        if last:
            cursor.execute(_LOOK, [int(last.partition(":")[0]), last])
        else:
            cursor.execute(_FIRST)
        snapshot, at, changed = cursor.fetchone()
    return Look(snapshot, at, tuple(json.loads(changed)) if changed else ())


def forget_old() -> int:
    """Delete changes that every reader has seen or no longer needs; returns their number."""
    deleted, _ = PermissionChange.objects.filter(at__lt=Now() - KEEP).delete()
    return deleted
