"""What one rule says about one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from lifecycle.policy.types import OPENS_THE_GATE, Status

EVIDENCE_MAX: Final = 50  # entries; `counts` has the whole numbers


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that a rule looked at and objects to."""

    text: str
    advisory: str = ""
    package: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a rule: a status, one sentence, who can resolve it, and what it stands on."""

    status: Status
    summary: str
    who: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.status in OPENS_THE_GATE


def passed(summary: str, **counts: int) -> Outcome:
    return Outcome(Status.SATISFIED, summary, counts=counts)


def accepted(summary: str, **counts: int) -> Outcome:
    """Return an outcome in which something is unknown and the rule's owner accepted that, by a parameter."""
    return Outcome(Status.WAIVED, summary, counts=counts)


def failed(summary: str, who: str, *, evidence: tuple[Evidence, ...] = (), **counts: int) -> Outcome:
    return Outcome(Status.UNSATISFIED, summary, (who,), counts, evidence[:EVIDENCE_MAX])


def waits(summary: str) -> Outcome:
    """Return an outcome for facts that Gravingdock is still collecting."""
    return Outcome(Status.PENDING, summary, ("Gravingdock",))


def unknown(summary: str, who: str) -> Outcome:
    """Return an outcome for facts that nobody has. Unknown is never a pass."""
    return Outcome(Status.ERROR, summary, (who,))


def does_not_apply(summary: str) -> Outcome:
    return Outcome(Status.NOT_APPLICABLE, summary)
