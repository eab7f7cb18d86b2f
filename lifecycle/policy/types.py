"""The facts that policies judge, and the verdict of a promotion gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from lifecycle.policy.quorum import Rule


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

    name: str  # stable word: approvals, packages_known, stage_order
    title: str
    status: Status
    summary: str
    who: tuple[str, ...] = ()  # user names, roles or actions that can resolve it
    counts: Mapping[str, int] = field(default_factory=dict)  # the numbers in the summary, by name
    mode: str = "enforce"  # of a rule of a policy: one in "warn" is shown and opens the gate

    @property
    def is_open_gate(self) -> bool:
        return self.status in OPENS_THE_GATE or self.mode != "enforce"

    def as_json(self) -> dict[str, Any]:
        """Return it as an Evaluation stores it. `mode` is there only for a rule that does not block."""
        record = asdict(self) | {"status": self.status.value, "who": list(self.who), "counts": dict(self.counts)}
        if self.mode == "enforce":
            del record["mode"]
        return record


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
class SoakFacts:
    """How long the image has stayed in the environment before this one, without interruption."""

    environment: str
    required_s: int
    stayed_s: int  # the longest stay that has ended
    since: datetime | None = None  # start of the present stay; None when it is not there
    is_done: bool = False  # the present or an earlier stay was long enough


@dataclass(frozen=True, slots=True)
class HoldFacts:
    """A hold that applies to the request: whose, why, and until when, as texts."""

    owner: str
    reason: str
    until: str  # "" for one that somebody must lift
    is_stop: bool = False


@dataclass(frozen=True, slots=True)
class ObjectionFacts:
    """An objection of somebody who can still approve: whose, why, and who overruled it."""

    voter: str
    comment: str
    overruled_by: str = ""  # "" for one that stops the request


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
    rules: Sequence[Rule] = ()  # the environment's approval rules, with the people above who are in each group
    exclusions: Sequence[str] = ("The requester does not count.",)  # one sentence for each excluded user
    allowances: Sequence[str] = ()  # one sentence for each exclusion that is switched off
    soak: SoakFacts | None = None  # None when the environment requires none, or the request skips it
    holds: Sequence[HoldFacts] = ()  # only those that stop every promotion
    objections: Sequence[ObjectionFacts] = ()
    open_threads: Sequence[str] = ()  # one user name for each blocking thread that is not resolved
    skips_stages: str = ""  # why the order of environments does not apply, as a sentence; "" when it does
    quarantines: Sequence[str] = ()  # one sentence for each quarantine that covers the image
    missing_platforms: Sequence[str] = ()  # children of an index that are absent from its registry
    artifact: str = ""  # what it is, when it is no image: "Helm chart"; "" for an image


@dataclass(frozen=True, slots=True)
class SignatureFact:
    """One signature or attestation that verified with a key or an identity of a trusted source."""

    object_digest: str  # the content that holds it: a bundle's manifest, a layer of a `.sig` tag
    subject_digest: str  # the image or index that it signs; of an index when an index of the image is signed
    format: str  # bundle, simplesigning, dsse, notation
    source: str  # name of the trusted source
    key_fingerprint: str = ""  # "sha256:<hex>" of the public key, or of a notation certificate
    identity: str = ""  # keyless: the certificate's e-mail address or URI, exactly
    issuer: str = ""  # keyless: the OIDC issuer
    predicate_type: str = ""  # of an attestation; "" for a signature
    builder_id: str = ""  # of a verified SLSA provenance
    source_uri: str = ""  # of a verified SLSA provenance: where the source code was
    signed_at: datetime | None = None  # proven by a log or a time stamp; None when nothing proves it

    @property
    def is_attestation(self) -> bool:
        return bool(self.predicate_type)


@dataclass(frozen=True, slots=True)
class SignatureFacts:
    """Who signed an image, by the trusted sources of today.

    `verified` is complete only when `is_known`. Otherwise `problem` says why nobody can say, and no rule may pass.
    """

    is_known: bool
    verified: tuple[SignatureFact, ...] = ()
    refused: tuple[str, ...] = ()  # one sentence for each signature that did not verify, or whose signer is not trusted
    unsigned_attestations: int = 0  # BuildKit's and other bare statements: they never count as signed
    problem: str = ""


class BaseTrust(StrEnum):
    """Whether an image stands on trusted ground."""

    TRUSTED = "trusted"  # every direct base is from a trusted source
    UNTRUSTED = "untrusted"  # at least one direct base is from nowhere that is trusted
    UNKNOWN = "unknown"  # no base is known, the declared base was never seen, or no source is set up
    SOURCE = "source"  # the image is itself from a trusted source


@dataclass(frozen=True, slots=True)
class BaseFact:
    """One direct base of an image."""

    digest: str
    name: str  # where it is or was, "docker.io/library/debian:13"; "" when no readable name is known
    is_trusted: bool
    source: str = ""  # name of the trusted source that covers it
    reason: str = ""  # why it is not trusted, as a sentence


@dataclass(frozen=True, slots=True)
class BaseTrustFacts:
    """The direct bases of an image, and whether trusted sources cover all of them."""

    status: BaseTrust
    bases: tuple[BaseFact, ...] = ()
    reason: str = ""  # one sentence for untrusted and unknown
