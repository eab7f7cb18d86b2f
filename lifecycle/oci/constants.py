"""Constants and limits of the OCI specifications, and our own limits."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

MIB: Final = 1024 * 1024

MANIFEST_MAX_BYTES: Final = 4 * MIB  # distribution-spec: expect to support at least 4 megabytes
CONFIG_MAX_BYTES: Final = 8 * MIB
ERROR_MAX_BYTES: Final = 64 * 1024
LISTING_MAX_BYTES: Final = 16 * MIB  # Distribution 2.8 returns all tags of a repository in one response
BLOB_MAX_BYTES: Final = 16 * 1024 * MIB
# For documents that we use. Documents that we only copy have no limit but the registry's: MANIFEST_MAX_BYTES.
LAYERS_MAX: Final = 1000  # runtimes stop near 127; cosign at 1000 signature layers
CHILDREN_MAX: Final = 1000  # manifests in one index
REFERRERS_MAX: Final = 50_000  # of one subject: more than an index of MANIFEST_MAX_BYTES can list
GRAPH_DEPTH_MAX: Final = 5  # index in index in index ...
GRAPH_NODES_MAX: Final = 10_000
JSON_DEPTH_MAX: Final = 64
TEXTS_MAX: Final = 10_000  # entries of one list of texts, such as Env
TEXT_MAX: Final = 64 * 1024  # characters of one text in a row; the documents themselves are kept whole
PAGE_SIZE: Final = 1000  # Distribution 2.8 answers 400 for larger pages
PAGES_MAX: Final = 1000


class MediaType(StrEnum):
    """The media types that we interpret. Any other media type belongs to an artifact."""

    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
    DOCKER_SCHEMA_1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    EMPTY = "application/vnd.oci.empty.v1+json"


INDEX_TYPES: Final = frozenset({MediaType.OCI_INDEX, MediaType.DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({MediaType.OCI_MANIFEST, MediaType.DOCKER_MANIFEST})
IMAGE_CONFIG_TYPES: Final = frozenset({MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG})
SCHEMA_1_TYPES: Final = frozenset({MediaType.DOCKER_SCHEMA_1, MediaType.DOCKER_SCHEMA_1_SIGNED})
# What a registry serves under /manifests/. An index can also list blobs, as BuildKit's cache export does.
SERVED_AS_MANIFEST: Final = INDEX_TYPES | MANIFEST_TYPES | SCHEMA_1_TYPES

# All four: without the OCI ones Distribution answers 404, even for */*.
ACCEPT_MANIFESTS: Final = (
    f"{MediaType.OCI_INDEX}, {MediaType.OCI_MANIFEST}, {MediaType.DOCKER_LIST}, {MediaType.DOCKER_MANIFEST}"
)

# Parts of the media types of foreign layers. Their content is at their `urls`, not in the registry; do not copy it.
FOREIGN_LAYER_PARTS: Final = (".nondistributable.", ".foreign.")


OCI_PREFIX: Final = "org.opencontainers.image."
LEGACY_PREFIX: Final = "org.label-schema."
