"""The details of audit events about promotions, environments, policies and quarantines."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class PolicySaved(Details):
    """The scope, number and digest of a revision, and the rules that changed: "+ key", "- key" or "key"."""

    scope: str
    revision: int
    digest: str
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DueDatesSaved(Details):
    """The number of the revision, and its rows in words."""

    revision: int
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WaiverDetails(Details):
    """The rule, the finding and the image that a waiver covers ("" for all), and its end."""

    rule: str
    advisory: str
    package: str
    digest: str
    until: str


@dataclass(frozen=True, slots=True)
class QuarantineDetails(Details):
    """The quarantined image, whether images built on it are covered too, and the incident ("" for none)."""

    digest: str
    descendants: bool
    incident: str


@dataclass(frozen=True, slots=True)
class WithdrawalDetails(Details):
    """An image that a quarantine withdraws, and its tags in the repository: those removed, undone, or put back."""

    digest: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnvironmentCreated(Details):
    """The repository prefix of a new environment, the number of approvals it requires, and its registry."""

    prefix: str
    required_approvals: int
    registry: str


@dataclass(frozen=True, slots=True)
class EnvironmentChanged(Details):
    """The changed settings before and after, as text. `is_about_approvals`: who must approve, or how many."""

    before: dict[str, str]
    after: dict[str, str]
    is_about_approvals: bool


@dataclass(frozen=True, slots=True)
class EnvironmentRemoved(Details):
    """The short name and the repository prefix of the removed environment."""

    slug: str
    prefix: str


@dataclass(frozen=True, slots=True)
class WindowDetails(Details):
    """The name, kind and place of a window, and when it applies: local start, seconds, time zone, repetition."""

    name: str
    kind: str
    place: str
    starts_at: str
    duration_s: int
    time_zone: str
    rule: str


@dataclass(frozen=True, slots=True)
class HoldDetails(Details):
    """The place and the scope of a hold (auto, all or stop), and when it expires: a time, or "never"."""

    place: str
    scope: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class SourceDetails(Details):
    """The trusted source, its revision, the places that it covers, and its signers."""

    source: str
    revision: int
    places: str
    signers: str


@dataclass(frozen=True, slots=True)
class ExternalCheckDetails(Details):
    """The name of an external check, as rules have it, and the host of its address."""

    check: str
    host: str


@dataclass(frozen=True, slots=True)
class PromotionExecuting(Details):
    """The digest of the evaluation that allowed a promotion, the fencing number of its job, and where it copies to."""

    evaluation: str
    fence: int
    target: str


@dataclass(frozen=True, slots=True)
class VoteLapsed(Details):
    """The name of the person whose approval lapsed."""

    voter: str


@dataclass(frozen=True, slots=True)
class BreakGlassUsed(Details):
    """The incident, the titles of the bypassed requirements, and until when another person must review it."""

    incident: str
    bypassed: tuple[str, ...]
    due_at: str


@dataclass(frozen=True, slots=True)
class VerificationAsked(Details):
    """Who verifies the promotion (manual or http), and until when."""

    by: str
    due_at: str


@dataclass(frozen=True, slots=True)
class CommentMade(Details):
    """The number of the thread, and whether the request waits until it is resolved. The text is not kept here."""

    thread: int
    is_blocking: bool


@dataclass(frozen=True, slots=True)
class ThreadResolved(Details):
    """The number of the thread."""

    thread: int


@dataclass(frozen=True, slots=True)
class ReviewSettled(Details):
    """What the review said: justified or unjustified."""

    outcome: str


@dataclass(frozen=True, slots=True)
class PromotionRequested(Details):
    """The tag in the target, and the kind: forward, rollback, rebuild-refresh or break-glass."""

    tag: str
    kind: str


@dataclass(frozen=True, slots=True)
class ReleaseSetMembers(Details):
    """The members as PR-13 shop/api:1.2@sha256:..., each with the tag in its target."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromotionReminded(Details):
    """The deadline that is near (approval or run), and its time."""

    deadline: str
    due_at: str


@dataclass(frozen=True, slots=True)
class PromotionSuperseded(Details):
    """The newer request that replaces this one, as PR-13."""

    newer: str


@dataclass(frozen=True, slots=True)
class VoteApproved(Details):
    """The SHA-256 of the public key of the passkey that signed the approval; empty for one that is not signed."""

    key_sha256: str


@dataclass(frozen=True, slots=True)
class VoteWithdrawn(Details):
    """The vote that was taken back: approve or object."""

    vote: str


@dataclass(frozen=True, slots=True)
class ObjectionOverruled(Details):
    """The name of the person who had objected."""

    voter: str
