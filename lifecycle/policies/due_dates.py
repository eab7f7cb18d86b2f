"""The table of due dates as admins keep it: read and save. One table for the whole site."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from accounts.models import User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import DueDatesSaved
from lifecycle.authority.rights import is_above_grants
from lifecycle.core import locks
from lifecycle.core.context import once_a_read
from lifecycle.core.errors import Malformed, StaleVersion
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.policies.models import DueTable
from lifecycle.policy.due_dates import DEFAULT, DueRow, rows_of

NOTE_MAX = 2000
_LOCK = 0x64756520  # "due "


@dataclass(frozen=True, slots=True)
class DueDates:
    """The rows now, and their revision. Revision 0 is the table that Gravingdock ships."""

    revision: int
    rows: tuple[DueRow, ...]
    changed_by: str = ""
    changed_at: datetime | None = None
    note: str = ""

    @property
    def etag(self) -> str:
        return f'"due-dates.{self.revision}"'


def due_dates() -> DueDates:
    """Return the table of due dates; one query, once for a request that only reads."""
    return once_a_read(("due-dates",), _read)


def _read() -> DueDates:
    row = DueTable.objects.select_related("changed_by").order_by("-pk").first()
    if row is None:
        return DueDates(0, DEFAULT)
    return DueDates(row.revision, rows_of(row.rows), row.changed_by.username, row.changed_at, row.note)


def why_not_save(actor: User) -> Reason | None:
    """Return why `actor` cannot change the table: it is for admins."""
    return None if is_above_grants(actor) else Reason("Only admins can change due dates. Ask an admin.")


@transaction.atomic
def save_due_dates(rows: Any, *, actor: User, seen: int, note: str = "") -> DueDates:
    """Store the table; `seen` is the revision that the author changed. Alerts and lists follow within a minute.

    Raises NotPermitted, Malformed for a wrong row, or StaleVersion when somebody else saved it since.
    """
    refuse_if(why_not_save(actor))
    checked = rows_of(rows)
    if len(note) > NOTE_MAX or "\0" in note:
        raise Malformed(f"The note has at most {NOTE_MAX} characters.", field="note")
    locks.wait_for(_LOCK)
    current = _read()
    if current.revision != seen:
        raise StaleVersion("Somebody else saved the due dates. Load them again and repeat your change.")
    made = DueTable.objects.create(
        revision=current.revision + 1, rows=[row.as_json() for row in checked], changed_by=actor, note=note.strip()
    )
    details = DueDatesSaved(revision=made.revision, rows=tuple(f"{row.words}: {row.days} days" for row in checked))
    audit.record(Action.DUE_DATES_SAVED, actor=actor, subject=made, reason=made.note, details=details)
    events.publish(events.PolicyChanged(None, None))
    return DueDates(made.revision, checked, actor.username, made.changed_at, made.note)
