"""The details of audit events about the sealed log itself."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class LogStarted(Details):
    """The name of a log, why it began, the log before it, and how many events had been recorded before.

    `why` is `started`, `restored` (the database was restored from a backup) or `key_changed`.
    """

    origin: str
    why: str
    previous: str
    backlog: int


@dataclass(frozen=True, slots=True)
class AnchorDetails(Details):
    """A place outside of the database that gets checkpoints: its name, its kind, and how it is reached."""

    anchor: str
    kind: str
    target: str
