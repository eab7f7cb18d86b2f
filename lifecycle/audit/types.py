"""What can be asked of the trail: one filter for the page, its export and the API."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; an empty field asks for nothing. `subject` is a whole digest, or a repository's name."""

    action: str = ""  # a prefix: `promotion` finds promotion.approved
    actor: str = ""
    team: str = ""
    subject: str = ""
    outcome: str = ""
    since: date | None = None  # the first day, in UTC
    until: date | None = None  # the last day, in UTC

    def as_json(self) -> dict[str, str]:
        """Return the fields that ask for something, for the trail's own record of an export."""
        return {name: str(value) for name, value in asdict(self).items() if value}
