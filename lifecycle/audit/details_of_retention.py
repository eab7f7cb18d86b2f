"""The details of audit events about retention."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class RetentionRulesChanged(Details):
    """The rules before and after, as text; empty if there were none."""

    before: dict[str, str]
    after: dict[str, str]


@dataclass(frozen=True, slots=True)
class RetentionPlanned(Details):
    """The number of the plan, how many images it deletes and keeps, and whether unknown runtimes were accepted."""

    plan: str
    delete: int
    keep: int
    accept_unknown_runtime: bool


@dataclass(frozen=True, slots=True)
class RetentionFinished(Details):
    """The number of the plan, how many images were deleted, and how many were kept when judged again."""

    plan: str
    deleted: int
    kept: int


@dataclass(frozen=True, slots=True)
class RetentionRestored(Details):
    """The number of the plan, and the digests to put back; the first ones, if there are many."""

    plan: str
    count: int
    digests: tuple[str, ...]
