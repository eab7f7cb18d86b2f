"""OCI documents once they are understood: small, frozen, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lifecycle.core.types import Digest
from lifecycle.oci.constants import FOREIGN_LAYER_PARTS, INDEX_TYPES


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, normalised: `arm64` never has variant `v8`, `amd64` never `v1`."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer from one document to another."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    @property
    def is_foreign(self) -> bool:
        """Whether the content lives elsewhere by licence and is not to be copied."""
        return bool(self.urls) and any(part in self.media_type for part in FOREIGN_LAYER_PARTS)


@dataclass(frozen=True, slots=True)
class ManifestContent:
    """A manifest or index as served: the exact bytes, which are what the digest names."""

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
    artifact_type: str  # the effective one: `artifactType`, else empty when the config is an image's
    annotations: Mapping[str, str]

    @property
    def is_image(self) -> bool:
        """Whether this is a container image rather than an attached document."""
        return self.artifact_type == ""

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything the manifest needs beside itself, config first; foreign layers are left out."""
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
class HistoryEntry:
    created_at: datetime | None
    created_by: str
    comment: str
    author: str
    is_empty_layer: bool


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """An image's configuration; texts are safe to store (no NUL, no lone surrogate)."""

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
