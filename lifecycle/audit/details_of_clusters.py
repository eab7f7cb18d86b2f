"""The details of audit events about clusters."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class AdmissionDebtReviewed(Details):
    """The cluster and the workload of a break-glass, and what the review said: justified or unjustified."""

    slug: str
    workload: str
    outcome: str


@dataclass(frozen=True, slots=True)
class ClusterCreated(Details):
    """The short name and the kind of a new cluster, and its settings."""

    slug: str
    kind: str
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class ClusterChanged(Details):
    """The changed settings of a cluster before and after, as text."""

    slug: str
    before: dict[str, str]
    after: dict[str, str]


@dataclass(frozen=True, slots=True)
class ClusterBindings(Details):
    """The bindings before and after, each as `pattern: team/environment mode`."""

    slug: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterSecretMade(Details):
    """The cluster, and what the secret is for: admission or alerts. The secret itself is not kept."""

    slug: str
    kind: str


@dataclass(frozen=True, slots=True)
class ClusterAgentBound(Details):
    """The cluster, and the account of the robot that reports it."""

    slug: str
    user: str


@dataclass(frozen=True, slots=True)
class ClusterDeleted(Details):
    """The short name and the kind of a deleted cluster, and how many rows of each kind ended with it."""

    slug: str
    kind: str
    bindings: int
    secrets: int
    running_images: int
    running_containers: int
    past_images: int
    alerts: int
    decisions: int
