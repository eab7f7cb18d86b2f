"""The filter of the audit log, for the page, the export and the API."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A filter of events. Empty fields match all events. `subject`: see audit/subjects.py."""

    action: str = ""  # a prefix: `promotion` matches promotion.approved
    actor: str = ""
    team: str = ""
    subject: str = ""
    outcome: str = ""
    since: date | None = None  # the first day, in UTC
    until: date | None = None  # the last day, in UTC

    def as_json(self) -> dict[str, str]:
        """Return the fields that are set, for the audit event of an export."""
        return {name: str(value) for name, value in asdict(self).items() if value}
