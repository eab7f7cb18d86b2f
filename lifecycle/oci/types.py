"""Parsed and checked OCI documents, as frozen data classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lifecycle.core.types import Digest
from lifecycle.oci.constants import FOREIGN_LAYER_PARTS, INDEX_TYPES, SERVED_AS_MANIFEST


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform of an image, normalised: `arm64` never has variant `v8`, `amd64` never has `v1`."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference from one document to another."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    @property
    def is_manifest(self) -> bool:
        """Whether a registry serves the content as a manifest. Other content is a blob."""
        return self.media_type in SERVED_AS_MANIFEST

    @property
    def is_foreign(self) -> bool:
        """Whether the content is stored elsewhere for licence reasons, and must not be copied."""
        return bool(self.urls) and any(part in self.media_type for part in FOREIGN_LAYER_PARTS)


@dataclass(frozen=True, slots=True)
class ManifestContent:
    """A manifest or index as served. The digest is computed from these exact bytes."""

    digest: Digest
    media_type: str
    content: bytes

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES


@dataclass(frozen=True, slots=True)
class ManifestDocument:
    """An image manifest (of an image or of any other artifact)."""

    digest: Digest
    media_type: str
    size_bytes: int
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str  # `artifactType`, else the config's media type; empty for an image
    annotations: Mapping[str, str]

    @property
    def is_image(self) -> bool:
        """Whether this is a container image and not another artifact."""
        return self.artifact_type == ""

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All blobs of the manifest, config first, without foreign layers."""
        return (self.config, *(layer for layer in self.layers if not layer.is_foreign))


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """An image index (or Docker manifest list)."""

    digest: Digest
    media_type: str
    size_bytes: int
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Links:
    """The content that a manifest or index names by digest. A copy needs nothing else."""

    manifests: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]  # config first, without foreign layers
    subject: Digest | None
    artifact_type: str  # `artifactType`, else the config's media type
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    created_at: datetime | None
    created_by: str
    comment: str
    author: str
    is_empty_layer: bool


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """An image configuration. Its texts have no NUL and no lone surrogates, so they can be stored."""

    digest: Digest
    platform: Platform
    created_at: datetime | None
    author: str
    user: str  # empty means root
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    working_dir: str
    stop_signal: str
    exposed_ports: tuple[str, ...]
    volumes: tuple[str, ...]
    labels: Mapping[str, str]
    has_healthcheck: bool
    diff_ids: tuple[Digest, ...]
    history: tuple[HistoryEntry, ...]
