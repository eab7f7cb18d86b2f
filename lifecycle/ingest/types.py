"""Notification events, and manifests that were read from a registry and not yet stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lifecycle.core.types import Digest
from lifecycle.oci.types import ConfigDocument, IndexDocument, ManifestContent, ManifestDocument
from lifecycle.registry.models import Image


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """One event of a notification: a hint about a change. Texts are checked where they are used, not here."""

    event_id: str
    instance: str
    action: str
    repository: str
    digest: str
    tag: str
    actor_name: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class ManifestNode:
    """One manifest or index of a graph, as the registry served it."""

    content: ManifestContent
    document: ManifestDocument | IndexDocument
    config: ConfigDocument | None = None  # of an image's manifest
    raw_config: Mapping[str, Any] | None = None

    @property
    def digest(self) -> Digest:
        return self.content.digest


@dataclass(frozen=True, slots=True)
class Graph:
    """A top-level manifest or index and all manifests below it, children before parents."""

    top: Digest
    nodes: tuple[ManifestNode, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """The stored top of a graph. `kept` is the image to move the tag back to, when its move was refused."""

    image: Image
    kept: Image | None = None
