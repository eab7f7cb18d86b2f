"""The facts that a promotion gate evaluates, and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """A requirement's status, named as in Gerrit."""

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
    """One evaluated rule: its title, its status, and who can resolve it."""

    name: str  # stable word: approvals, packages_known, stage_order, platforms_complete
    title: str
    status: Status
    summary: str
    who: tuple[str, ...] = ()  # user names, roles or actions that can resolve it
    counts: Mapping[str, int] = field(default_factory=dict)  # the numbers in the summary, by name

    @property
    def is_open_gate(self) -> bool:
        return self.status in OPENS_THE_GATE

    def as_json(self) -> dict[str, Any]:
        """Return it as an Evaluation stores it."""
        return asdict(self) | {"status": self.status.value, "who": list(self.who), "counts": dict(self.counts)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """All requirements of one evaluation. Unknown facts do not pass."""

    requirements: tuple[Requirement, ...]

    @property
    def is_allowed(self) -> bool:
        return all(requirement.is_open_gate for requirement in self.requirements)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each requirement that is not met."""
        return tuple(f"{r.title}: {r.summary}" for r in self.requirements if not r.is_open_gate)


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """Facts about one platform manifest of the image."""

    digest: str
    platform: str
    is_known: bool  # ingested: its manifest is stored
    is_scanned: bool
    scan_problem: str = ""
    is_matched: bool = True  # no package waits to be matched, so its findings are complete
    package_count: int = 1  # packages that the scan saw; with 0, nothing in the image was recognised
    unjudged_count: int = 0  # packages that no advisory could match
    unknown: str = ""  # what could not be judged, as a phrase: "2 of 80 packages could not be judged: ..."


@dataclass(frozen=True, slots=True)
class PromotionFacts:
    """All facts that decide about a promotion, read from the database at one moment."""

    required_approvals: int
    approvers: Sequence[str]  # user names with a counting approval: have the right, not the requester, each once
    eligible: Sequence[str]  # user names that can still approve
    platforms: Sequence[PlatformFacts]
    previous_environment: str | None  # the environment before this one; None for the first
    is_or_was_in_previous: bool
    uncounted: Sequence[str] = ()  # one sentence for each approval that does not count, with the reason
    missing_platforms: Sequence[str] = ()  # children of an index that are absent from its registry
