"""Re-exports the models of all packages, so that Django finds them."""

from lifecycle.advisories.models import Advisory, AffectedInterval, Coverage, Feed, Match
from lifecycle.api.models import IdempotencyKey
from lifecycle.audit.models import AuditEvent, AuditPending
from lifecycle.authority.models import (
    CredentialFailure,
    EnvironmentUserPermission,
    RepositoryUserPermission,
    RoleGrant,
    TeamUserPermission,
)
from lifecycle.environments.models import Environment, Slot
from lifecycle.ingest.models import Delivery
from lifecycle.jobs.models import Job, JobLogLine, ScheduleSlot
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.promotion.models import Evaluation, PromotionRequest, Vote
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import (
    Image,
    IndexEntry,
    Layer,
    Metadata,
    MissingChild,
    Registry,
    Repository,
    RepositoryImage,
    Tag,
    TagEvent,
)
from lifecycle.sbom.models import ImageInventory, Inventory, InventoryPackage, PackageVersion, Sbom

__all__ = [
    "Advisory",
    "AffectedInterval",
    "Ancestry",
    "AuditEvent",
    "AuditPending",
    "BuilderPermit",
    "Coverage",
    "CredentialFailure",
    "Delivery",
    "Derivation",
    "Environment",
    "EnvironmentUserPermission",
    "Evaluation",
    "Feed",
    "IdempotencyKey",
    "Image",
    "ImageInventory",
    "IndexEntry",
    "Inventory",
    "InventoryPackage",
    "Job",
    "JobLogLine",
    "Layer",
    "Match",
    "Metadata",
    "MissingChild",
    "PackageVersion",
    "PromotionRequest",
    "RebuildJob",
    "RebuildWave",
    "Recipe",
    "Registry",
    "Repository",
    "RepositoryImage",
    "RepositoryUserPermission",
    "RoleGrant",
    "Sbom",
    "ScheduleSlot",
    "Slot",
    "Tag",
    "TagEvent",
    "TeamUserPermission",
    "UpstreamWatch",
    "Vote",
]
