"""Re-exports the models of all packages, so that Django finds them."""

from lifecycle.admission.models import (
    AdmissionBatch,
    AdmissionCount,
    AdmissionDebt,
    AdmissionDecision,
    AdmissionEpoch,
    AdmissionLoad,
    AdmissionVerdict,
)
from lifecycle.advisories.models import Advisory, AffectedInterval, Coverage, Feed, Match, PrivateAdvisory
from lifecycle.alerts.models import Alert, AlertPass, ChangedPackages, SeenFinding
from lifecycle.api.models import IdempotencyKey
from lifecycle.audit.models import AuditEvent, AuditPending
from lifecycle.authority.models import (
    CredentialFailure,
    EnvironmentUserPermission,
    PermissionChange,
    RepositoryUserPermission,
    RoleGrant,
    TeamUserPermission,
)
from lifecycle.clusters.models import Cluster, ClusterSecret, NamespaceBinding
from lifecycle.environments.models import ApprovalRule, Environment, Hold, Occupancy, PromotionWindow, Slot
from lifecycle.evidence.models import IngestVerdict
from lifecycle.ingest.models import Delivery
from lifecycle.inventory.models import (
    ClusterNamespace,
    PodSpec,
    Reporter,
    RunningContainer,
    RunningImage,
    RuntimeReport,
)
from lifecycle.jobs.models import Job, JobLogLine, ScheduleSlot
from lifecycle.keyless.models import Exchange, TrustRule
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.notices.models import Channel, InboxItem, Message, Mute, Notice, Preferences
from lifecycle.pentests.models import PentestFinding, PentestRun
from lifecycle.policies.models import DueTable, Policy, PolicyRevision, Waiver
from lifecycle.promotion.models import Evaluation, PromotionRequest, ReleaseSet, Vote
from lifecycle.quarantine.models import Quarantine, QuarantineExemption
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
from lifecycle.remedies.models import FixComment, Remedy, RemedyPass, TeamFix
from lifecycle.retention.models import RetentionEntry, RetentionPlan, RetentionRules
from lifecycle.runtime.models import RuntimeEvent
from lifecycle.sbom.models import (
    ContentCheck,
    ContentSet,
    ImageContentSet,
    ImageInventory,
    Inventory,
    InventoryPackage,
    PackageList,
    PackageListInventory,
    PackageVersion,
    Sbom,
)
from lifecycle.trends.models import TrendDay, TrendFact, TrendState
from lifecycle.trust.models import Attestation, Signature, SigningKey, TrustCheck, TrustedSigner, TrustedSource
from lifecycle.vex.models import VexDocument, VexEffect, VexStatement

__all__ = [
    "AdmissionBatch",
    "AdmissionCount",
    "AdmissionDebt",
    "AdmissionDecision",
    "AdmissionEpoch",
    "AdmissionLoad",
    "AdmissionVerdict",
    "Advisory",
    "AffectedInterval",
    "Alert",
    "AlertPass",
    "Ancestry",
    "ApprovalRule",
    "Attestation",
    "AuditEvent",
    "AuditPending",
    "BuilderPermit",
    "ChangedPackages",
    "Channel",
    "Cluster",
    "ClusterNamespace",
    "ClusterSecret",
    "ContentCheck",
    "ContentSet",
    "Coverage",
    "CredentialFailure",
    "Delivery",
    "Derivation",
    "DueTable",
    "Environment",
    "EnvironmentUserPermission",
    "Evaluation",
    "Exchange",
    "Feed",
    "FixComment",
    "Hold",
    "IdempotencyKey",
    "Image",
    "ImageContentSet",
    "ImageInventory",
    "InboxItem",
    "IndexEntry",
    "IngestVerdict",
    "Inventory",
    "InventoryPackage",
    "Job",
    "JobLogLine",
    "Layer",
    "Match",
    "Message",
    "Metadata",
    "MissingChild",
    "Mute",
    "NamespaceBinding",
    "Notice",
    "Occupancy",
    "PackageList",
    "PackageListInventory",
    "PackageVersion",
    "PentestFinding",
    "PentestRun",
    "PermissionChange",
    "PodSpec",
    "Policy",
    "PolicyRevision",
    "Preferences",
    "PrivateAdvisory",
    "PromotionRequest",
    "PromotionWindow",
    "Quarantine",
    "QuarantineExemption",
    "RebuildJob",
    "RebuildWave",
    "Recipe",
    "Registry",
    "ReleaseSet",
    "Remedy",
    "RemedyPass",
    "Reporter",
    "Repository",
    "RepositoryImage",
    "RepositoryUserPermission",
    "RetentionEntry",
    "RetentionPlan",
    "RetentionRules",
    "RoleGrant",
    "RunningContainer",
    "RunningImage",
    "RuntimeEvent",
    "RuntimeReport",
    "Sbom",
    "ScheduleSlot",
    "SeenFinding",
    "Signature",
    "SigningKey",
    "Slot",
    "Tag",
    "TagEvent",
    "TeamFix",
    "TeamUserPermission",
    "TrendDay",
    "TrendFact",
    "TrendState",
    "TrustCheck",
    "TrustRule",
    "TrustedSigner",
    "TrustedSource",
    "UpstreamWatch",
    "VexDocument",
    "VexEffect",
    "VexStatement",
    "Vote",
    "Waiver",
]
