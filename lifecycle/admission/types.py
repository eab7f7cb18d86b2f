"""Reviews as they were read, and what is decided about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Why an image may not start. People search for these words."""

    ALLOWED = "allowed"
    NOT_PROMOTED = "not_promoted"
    UNKNOWN_DIGEST = "unknown_digest"
    UNKNOWN_TAG = "unknown_tag"
    TAG_NOT_ALLOWED = "tag_not_allowed"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    POLICY = "policy"
    ISOLATION = "isolation"
    FOREIGN_REGISTRY = "foreign_registry"
    NO_ENVIRONMENT = "no_environment"
    MALFORMED_REFERENCE = "malformed_reference"
    SNAPSHOT_STALE = "snapshot_stale"
    BREAKGLASS_NOT_PERMITTED = "breakglass_not_permitted"


# What no break-glass opens.
CLOSED: frozenset[Code] = frozenset({Code.QUARANTINED, Code.MALFORMED_REFERENCE, Code.BREAKGLASS_NOT_PERMITTED})


class BadReview(ValueError):
    """The body is not an AdmissionReview of a version that we know."""


@dataclass(frozen=True, slots=True)
class Named:
    """An image that an object names, and where."""

    where: str  # "container web"
    reference: str
    path: str = ""  # JSON pointer in the object


@dataclass(frozen=True, slots=True)
class Review:
    """What an API server asks. `images` are those that are new; None: the object has no readable pod spec."""

    uid: str = ""
    operation: str = "CREATE"
    group: str = ""  # of the kind
    kind: str = "Pod"
    namespace: str = ""
    name: str = ""
    user: str = ""
    groups: frozenset[str] = frozenset()
    is_dry_run: bool = False
    is_judged: bool = True  # False: no image can change, for example with a status
    is_pod: bool = True
    images: tuple[Named, ...] | None = ()
    kept: tuple[Named, ...] = ()  # those that the object had before an UPDATE, and still has
    annotation: str = ""
    old_annotation: str = ""
    has_controller: bool = False
    workload: tuple[str, str] = ("", "")  # kind and name of what people deploy
    owner: tuple[str, str] = ("", "")  # kind and name of the controlling owner; empty without one
    pod: dict[str, Any] = field(default_factory=dict)  # the pod template or Pod, for checks of its settings
    old_pod: dict[str, Any] = field(default_factory=dict)  # what it was before an UPDATE


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What is decided about one image."""

    where: str
    reference: str
    digest: str  # "" when it is not known
    code: Code
    reason: str = ""
    who: str = ""  # who can resolve it

    @property
    def is_allowed(self) -> bool:
        return self.code is Code.ALLOWED

    def as_json(self) -> dict[str, Any]:
        """Return it as the API and a recorded decision have it."""
        return {
            "where": self.where,
            "reference": self.reference,
            "digest": self.digest or None,
            "allowed": self.is_allowed,
            "code": self.code.value,
            "reason": self.reason,
            "who": self.who,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is decided about an object. `refused` are the images that may not start, in every mode but off."""

    mode: str
    environment_id: int | None = None
    environment: str = ""  # "shop/production"; "" without a binding
    images: tuple[ImageResult, ...] = ()
    refused: tuple[ImageResult, ...] = ()
    opened: tuple[ImageResult, ...] = ()  # what a break-glass opened
    breakglass: str = ""  # its reason, when it counts
    opened_names: tuple[str, ...] = ()  # what it opened, and no more: digests, references, failed checks with images

    @property
    def is_allowed(self) -> bool:
        return not self.refused or self.mode != "enforce"
