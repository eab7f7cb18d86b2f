"""What a gate says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """A requirement's state, in Gerrit's vocabulary."""

    NOT_APPLICABLE = "not_applicable"
    PENDING = "pending"
    SATISFIED = "satisfied"
    UNSATISFIED = "unsatisfied"
    WAIVED = "waived"
    BYPASSED = "bypassed"
    ERROR = "error"


OPENS_THE_GATE = frozenset({Status.SATISFIED, Status.WAIVED, Status.BYPASSED, Status.NOT_APPLICABLE})


@dataclass(frozen=True, slots=True)
class Requirement:
    """One rule as judged now: what it asks, how it stands, and who can move it."""

    name: str  # stable word: approvals, packages_known, stage_order, platforms_complete
    title: str
    status: Status
    summary: str
    who: tuple[str, ...] = ()  # user names, or roles in words, that can resolve it
    counts: Mapping[str, int] = field(default_factory=dict)  # the numbers of the summary, by name

    @property
    def is_open_gate(self) -> bool:
        return self.status in OPENS_THE_GATE

    def as_json(self) -> dict[str, Any]:
        """Return it as an Evaluation stores it."""
        return asdict(self) | {"status": self.status.value, "who": list(self.who), "counts": dict(self.counts)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """All requirements of one question; unknown is not a pass."""

    requirements: tuple[Requirement, ...]

    @property
    def is_allowed(self) -> bool:
        return all(requirement.is_open_gate for requirement in self.requirements)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each closed gate."""
        return tuple(f"{r.title}: {r.summary}" for r in self.requirements if not r.is_open_gate)


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """One platform manifest of the image in question."""

    digest: str
    platform: str
    is_known: bool  # ingested: its manifest is stored
    is_scanned: bool
    scan_problem: str = ""
    is_matched: bool = True  # no package of it waits to be matched: its findings are not too few


@dataclass(frozen=True, slots=True)
class PromotionFacts:
    """Everything a promotion is judged by, read from the database at one moment."""

    required_approvals: int
    approvers: Sequence[str]  # people whose approving vote counts now: right held, not the requester, each once
    eligible: Sequence[str]  # people who could still approve
    platforms: Sequence[PlatformFacts]
    previous_environment: str | None  # the one this environment is entered from; None for the first
    is_or_was_in_previous: bool
    missing_platforms: Sequence[str] = ()  # children that an index names and its registry did not have
