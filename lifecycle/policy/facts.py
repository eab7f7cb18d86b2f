"""The typed facts about an image that rules judge. `evidence.policy_facts` reads them; nothing here asks a database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from lifecycle.core.severities import RANKS
from lifecycle.policy.isolation_types import ImageConfig
from lifecycle.policy.types import BaseTrustFacts, SignatureFacts


class Need(StrEnum):
    """A group of facts. Only the groups that the rules of a set need are read."""

    PLATFORMS = "platforms"  # always read
    FINDINGS = "findings"
    HELD = "held"
    BASES = "bases"
    STAYS = "stays"
    SIGNATURES = "signatures"
    BASE_TRUST = "base_trust"
    CONTENTS = "contents"
    QUARANTINES = "quarantines"
    LICENCES = "licences"
    EXPLOITS = "exploits"
    EXTERNAL = "external"
    DUE_DATES = "due_dates"
    ISOLATION = "isolation"
    PENTESTS = "pentests"


@dataclass(frozen=True, slots=True)
class FindingFact:
    """One open finding of an image: a vulnerability and a package, the worst severity of all its versions."""

    advisory: str
    package: str  # with the namespace: "debian/openssl"
    type: str  # of the package URL: deb, pypi ...
    severity: str
    fixed_version: str  # "" when no fix is known
    first_seen: datetime  # when we first knew that this image has it
    exploited_on: date | None = None  # when a KEV list first named it; None: none does, or it was not read
    is_ransomware: bool = False  # known to be used in ransomware campaigns
    epss: float | None = None  # the probability of exploitation, 0 to 1; None: no score, or it was not read
    due_at: datetime | None = None  # None: it has no due date, or it was not read

    @property
    def is_fixable(self) -> bool:
        return bool(self.fixed_version)


@dataclass(frozen=True, slots=True)
class LicenceFacts:
    """The licences that the packages of all platforms declare: {licence or SPDX expression: names of packages}."""

    packages: Mapping[str, Collection[str]] = field(default_factory=dict)
    undeclared: int = 0  # packages that declare none, on the platform with the most


@dataclass(frozen=True, slots=True)
class ExternalFact:
    """What the service of an external check said last about the image, in a reply that it signed."""

    check: str  # site:scanner, or team:shop:scanner
    has_passed: bool | None = None  # None: it was not asked, or could not say
    at: datetime | None = None  # of the signed reply; None without one
    message: str = ""  # of the signed reply
    problem: str = ""  # why the last attempt brought no signed reply


@dataclass(frozen=True, slots=True)
class PentestFact:
    """One open pen-test finding that counts for an image. No title: it can be about a base of another team."""

    name: str  # PT-12
    severity: str
    relation: str  # own, inherited, carried


@dataclass(frozen=True, slots=True)
class PentestFacts:
    """The open pen-test findings that count for an image, the worst first, and whether anybody tested it."""

    findings: tuple[PentestFact, ...] = ()
    is_tested: bool = False  # it, or an earlier image of the repository, had a full run


@dataclass(frozen=True, slots=True)
class PlatformState:
    """What is known of one platform manifest."""

    digest: str
    platform: str
    is_known: bool = True  # its manifest is stored
    created_at: datetime | None = None  # from the configuration
    first_seen_at: datetime | None = None
    user: str | None = None  # of the configuration; "" is root; None: the configuration is unknown
    labels: Mapping[str, str] = field(default_factory=dict)
    image: ImageConfig | None = None  # what isolation checks need; None: not read, or the configuration is unknown
    sbom_at: datetime | None = None  # when its packages were listed; None: not yet
    scan_problem: str = ""
    unjudged: str = ""  # what could not be judged, as a phrase; "" when every package was
    is_matched: bool = True  # no package waits to be compared with the advisories
    distro: str | None = None  # debian-12; "" for an image without one; None: not known
    supported_until: date | None = None  # last day of the distribution's free support; None: not known

    @property
    def name(self) -> str:
        return self.platform or self.digest[:19]


@dataclass(frozen=True, slots=True)
class FileFact:
    """One problem of one file in the image: its kind, its path with a leading slash, and the rule or signature."""

    kind: str  # setuid, setgid, world_writable, device, private_key, credential, unowned, malware
    path: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ContentFacts:
    """What the check of the image's files found. With a `problem`, what is not listed is unknown, not absent."""

    found: tuple[FileFact, ...]
    problem: str = ""
    malware: str = "unknown"  # off, clean, found, unknown
    malware_problem: str = ""
    cut: frozenset[str] = frozenset()  # kinds of which not every file is listed


@dataclass(frozen=True, slots=True)
class BaseState:
    """A direct base of the image, and whether its tag has moved on."""

    digest: str
    name: str  # repository:tag, else the digest
    is_current: bool | None  # None: no tag ever pointed at it, so nobody can say
    behind_since: datetime | None = None  # when its tag first moved on


@dataclass(frozen=True, slots=True)
class Stay:
    """A time for which an environment held this digest."""

    environment: str
    since: datetime
    until: datetime | None = None  # None: it is there now


@dataclass(frozen=True, slots=True)
class HeldFacts:
    """The image that the environment holds of the same repository; its findings are None while they are unknown."""

    digest: str
    findings: frozenset[tuple[str, str]] | None  # (advisory, package)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """All that rules may know of an image, read at one moment."""

    digest: str
    now: datetime
    environment: str = ""  # slug of the environment in question; "" for none
    repository: str = ""
    artifact: str = ""  # what it is, when it is no image: "Helm chart"; "" for an image
    platforms: tuple[PlatformState, ...] = ()
    missing_platforms: tuple[str, ...] = ()
    findings: tuple[FindingFact, ...] | None = None  # None while the packages of a platform are unknown
    held: HeldFacts | None = None  # None: the environment holds nothing of the repository
    bases: tuple[BaseState, ...] = ()
    stays: tuple[Stay, ...] = ()
    signatures: SignatureFacts | None = None  # None: not read
    base_trust: BaseTrustFacts | None = None  # None: not read
    contents: ContentFacts | None = None  # None: not read, or a platform was not checked
    licences: LicenceFacts | None = None  # None: not read, or those of a platform are unknown
    kev_read_at: datetime | None = None  # of when the oldest KEV list is; None: none, or not read
    epss_scored_at: datetime | None = None  # the day of the oldest EPSS scores; None: none, or not read
    external: Mapping[str, ExternalFact] | None = None  # by check, of the site and the team; None: not read
    due_lists: frozenset[str] | None = None  # the lists that due dates depend on: kev, epss; None: no dates were read
    quarantines: tuple[str, ...] | None = None  # one sentence for each live quarantine; None: not read
    pentests: PentestFacts | None = None  # None: not read

    def age(self, moment: datetime) -> timedelta:
        return self.now - moment

    def days_since(self, moment: datetime) -> int:
        """Return the whole days since `moment`; never negative, because clocks differ."""
        return max(0, (self.now - moment).days)

    def without(self, waived: Collection[tuple[str, str]]) -> ImageFacts:
        """Return the facts without what is in `waived`: findings as (advisory, package), files as (path, kind)."""
        facts = self
        if facts.findings is not None:
            left = tuple(f for f in facts.findings if (f.advisory, f.package) not in waived)
            facts = replace(facts, findings=left)
        if facts.contents is not None:
            files = tuple(f for f in facts.contents.found if (f.path, f.kind) not in waived)
            facts = replace(facts, contents=replace(facts.contents, found=files))
        return facts


def severity_rank(severity: str) -> int:
    """Return 0 for critical, and more for less. An unknown severity ranks last."""
    return RANKS.get(severity, len(RANKS))
