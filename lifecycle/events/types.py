"""The events: frozen classes with ids and plain values, so that this package imports no model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """A change made by a service, in the transaction that is still open."""


@dataclass(frozen=True, slots=True)
class ImageIngested(Event):
    """The content of a platform manifest was stored for the first time."""

    image_id: int


@dataclass(frozen=True, slots=True)
class UnscannedImagePushed(Event):
    """An image whose last scan failed was pushed again."""

    image_id: int


@dataclass(frozen=True, slots=True)
class BaseDeclared(Event):
    """An index was stored, or an index declared the base of an image that was stored before it."""

    image_id: int


@dataclass(frozen=True, slots=True)
class ArtifactIngested(Event):
    """A Helm chart or another artifact that stands on its own was stored for the first time."""

    image_id: int


@dataclass(frozen=True, slots=True)
class ReferrerStored(Event):
    """Something that refers to an image by its digest is new in a repository: a signature, an attestation, an SBOM."""

    subject_digest: str


@dataclass(frozen=True, slots=True)
class RepositoriesCreated(Event):
    """Repositories were stored, after the first push, import or crawl, or became targets of an environment."""

    repository_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TagMoved(Event):
    """A tag was created, or moved to another image."""

    repository_id: int
    tag: str
    image_id: int


@dataclass(frozen=True, slots=True)
class PlacesChanged(Event):
    """Images that were known came into another repository, with or without a tag, or left one."""

    image_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImagesScanned(Event):
    """The package lists of these images were stored. `new_package_ids` are the package versions that are new."""

    image_ids: tuple[int, ...]
    new_package_ids: tuple[int, ...]
    actor_id: int  # on whose behalf follow-up jobs run


@dataclass(frozen=True, slots=True)
class SbomKept(Event):
    """An SBOM that a person sent, or that a registry holds, was stored for an image, or was withdrawn."""

    image_id: int


@dataclass(frozen=True, slots=True)
class ImagesImported(Event):
    """Images were imported from an inventory file. Subscribers do all their work now, because workers may not run."""

    image_ids: tuple[int, ...]
    new_package_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DerivationsChanged(Event):
    """The direct base images of these images changed."""

    image_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class MatchesChanged(Event):
    """The advisories that match these package versions changed.

    Matches that are older than `since` were there before; None: nobody knows which ones.
    """

    package_ids: frozenset[int]
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class RightsChanged(Event):
    """Role grants of these users changed, or their accounts were activated or deactivated."""

    user_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClusterChanged(Event):
    """The settings, the bindings or the secrets of a cluster changed."""

    cluster_id: int


@dataclass(frozen=True, slots=True)
class CoverageChanged(Event):
    """Feeds began or stopped to cover these (ecosystem, release) pairs."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PolicyChanged(Event):
    """The rules or waivers of the site (no team), of a team, or of one of its environments changed."""

    team_id: int | None
    environment_id: int | None


@dataclass(frozen=True, slots=True)
class ExternalAnswered(Event):
    """A service answered an external check about an image of a source repository, or a check has no answer any more."""

    image_id: int
    repository_id: int


@dataclass(frozen=True, slots=True)
class AuditRecorded(Event):
    """An action was recorded in the audit log. Who tells people about actions subscribes to it."""

    event_id: int
    action: str
    subject_kind: str
    subject_id: int | None
    actor_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class QuarantineChanged(Event):
    """A quarantine begins, or it or an exemption from it is about to end what it covers until now."""

    quarantine_id: int
    begins: bool


@dataclass(frozen=True, slots=True)
class PentestsChanged(Event):
    """Pen-test findings of a source repository were stored or decided."""

    repository_id: int


@dataclass(frozen=True, slots=True)
class VexChanged(Event):
    """These VEX statements begin to count, or count no longer."""

    statement_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WaiversChanged(Event):
    """These waivers of single findings begin to count, or count no longer."""

    waiver_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AttestationsRead(Event):
    """The signatures and attestations of an image were read again."""

    image_id: int


@dataclass(frozen=True, slots=True)
class TrustChanged(Event):
    """A trusted source was made, changed or retired: who counts as trusted can be others now."""

    source_id: int
