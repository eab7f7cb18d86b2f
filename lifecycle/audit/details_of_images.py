"""The details of audit events about images, advisories and rebuilds."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class AdvisoriesSynced(Details):
    """The numbers of stored advisories, of those that the feed no longer lists, of errors, and of unreadable ranges.

    Packages in an unreadable range have findings in state `unknown`.
    """

    stored: int
    tombstoned: int
    errors: int
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class FeedDetails(Details):
    """The feed, its kind and address, and the hours between two synchronisations; 0 without a schedule."""

    feed: str
    kind: str
    location: str
    every_hours: int = 0


@dataclass(frozen=True, slots=True)
class ExploitsSynced(Details):
    """The kind of the list (kev, epss), and the numbers of its entries, and of those that are new, changed and gone."""

    kind: str
    entries: int
    added: int
    changed: int
    removed: int


@dataclass(frozen=True, slots=True)
class InventoryImported(Details):
    """The numbers of added images, of images whose packages were stored, and of entries in repositories."""

    images: int
    scanned: int
    placed: int


@dataclass(frozen=True, slots=True)
class LineageDeclared(Details):
    """The digest of the declared base image."""

    base: str


@dataclass(frozen=True, slots=True)
class ImagePushed(Details):
    """The pushed tag ("" for a push by digest), how it was detected, the image's kind, and the digest it replaced."""

    tag: str
    via: str
    kind: str
    replaced: str


@dataclass(frozen=True, slots=True)
class ImagePushAttributed(Details):
    """The pushed tag, and how the push was detected."""

    tag: str
    via: str


@dataclass(frozen=True, slots=True)
class TagMoveRefused(Details):
    """The protected tag, and the digest that it is moved back to ("" for none)."""

    tag: str
    kept: str


@dataclass(frozen=True, slots=True)
class TagsProtected(Details):
    """The protected tag patterns of a repository before the change, and the new ones."""

    before: tuple[str, ...]
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepositoryDescribed(Details):
    """The description of a repository before and after the change."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class VisibilityChanged(Details):
    """The visibility of a repository before and after the change: private, internal or public."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RepositoryArchived(Details):
    """Whether the repository is archived now."""

    is_archived: bool


@dataclass(frozen=True, slots=True)
class RepositoryDeletionRequested(Details):
    """What goes with the repository."""

    tags: int
    images: int


@dataclass(frozen=True, slots=True)
class RepositoryDeleted(Details):
    """The repository that is gone, and the number of images that were deleted with it."""

    name: str
    images: int


@dataclass(frozen=True, slots=True)
class MetadataChanged(Details):
    """The key and the type of the metadata, and the value before and after; "" for none."""

    key: str
    kind: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class DeletionRequested(Details):
    """The tag to delete; "" for an image with all its tags."""

    tag: str


@dataclass(frozen=True, slots=True)
class RecipeChanged(Details):
    """The number of the new revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class AlertDetails(Details):
    """The kind of the alert, what it is about ("" for nothing), and the end of its snooze ("" for none)."""

    kind: str
    vulnerability: str
    digest: str
    until: str


@dataclass(frozen=True, slots=True)
class FixDetails(Details):
    """The key of the remedy then, its kind and package; who works on it, and until when it is put off ("" for none)."""

    remedy: str
    kind: str
    package: str
    person: str
    to_team: str
    until: str
    until_fix: bool


@dataclass(frozen=True, slots=True)
class PrivateAdvisoryDetails(Details):
    """The id of the record, its severity and up to 20 packages; whether the revision withdraws it."""

    advisory: str
    severity: str
    packages: tuple[str, ...]
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class IngestFailed(Details):
    """The keys of the rules at ingest that an image does not pass, and whether it is allowed: they only warn."""

    rules: tuple[str, ...]
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class ImageRebuilt(Details):
    """The digest of the old image, and the method of the rebuild."""

    old: str
    method: str


@dataclass(frozen=True, slots=True)
class RebuildPlanned(Details):
    """The number of images to rebuild, and what triggered the plan."""

    images: int
    trigger: str


@dataclass(frozen=True, slots=True)
class RebuildSuperseded(Details):
    """The id of the newer wave."""

    by: int


@dataclass(frozen=True, slots=True)
class RebuildFinished(Details):
    """The final state of a wave."""

    state: str


@dataclass(frozen=True, slots=True)
class SbomSent(Details):
    """The digest and format of an SBOM, and the numbers of its packages and of components without a package URL."""

    sbom: str
    format: str
    packages: int
    dropped: int


@dataclass(frozen=True, slots=True)
class SbomChosen(Details):
    """The digests of the SBOM that decides now and of the one before, and why. Empty: our own scan."""

    sbom: str
    before: str
    why: str


@dataclass(frozen=True, slots=True)
class VexDetails(Details):
    """What a decision says of a vulnerability, and the images and packages it is about ("" for all); its end."""

    vulnerability: str
    status: str
    justification: str
    scope: str
    package: str
    digest: str
    until: str


@dataclass(frozen=True, slots=True)
class VexDocumentDetails(Details):
    """A VEX document as it names itself, the digest of its bytes, and how many statements it has and were refused."""

    format: str
    name: str
    author: str
    version: str
    digest: str
    statements: int
    refused: int


@dataclass(frozen=True, slots=True)
class VexFeedDetails(Details):
    """The name and address of a VEX feed, the fingerprint of its key ("": none), and what it can speak for."""

    feed: str
    location: str
    key: str
    speaks_for: tuple[str, ...]
    every_hours: int  # 0 without a schedule


@dataclass(frozen=True, slots=True)
class VexFeedSynced(Details):
    """The numbers of documents that are new or changed, withdrawn, and that could not be used."""

    feed: str
    stored: int
    withdrawn: int
    failed: int


@dataclass(frozen=True, slots=True)
class PentestSent(Details):
    """The format and scope of a pen-test report, what was tested, and the numbers of results by what they changed."""

    format: str
    scope: str
    target: str
    results: int
    new: int
    fixed: int
    reopened: int
    refused: int


@dataclass(frozen=True, slots=True)
class PentestDecided(Details):
    """The rule and severity of a pen-test finding, until when it is accepted, and the digest to test again; or ""."""

    rule: str
    severity: str
    until: str = ""
    retest: str = ""
