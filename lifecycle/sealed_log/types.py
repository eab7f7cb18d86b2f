"""An event as the sealer reads it, and a head of the log that somebody outside of the database has seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """The columns of an audit event, in the order in which the sealer selects them."""

    id: int
    at: datetime
    action: str
    outcome: str
    actor_id: int | None
    actor_name: str
    token_lookup: str
    address: str | None
    request_id: str
    team_id: int | None
    subject_kind: str
    subject_id: int | None
    digest: str
    repository: str
    environment: str
    reason: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint that was published or anchored, and where it was found."""

    origin: str
    size: int
    root: bytes
    place: str
