"""Read a manifest and all its children from a registry. This module uses the network and writes no rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from lifecycle.core.errors import LimitExceeded, Malformed, MalformedManifest
from lifecycle.core.types import Digest
from lifecycle.ingest.types import Graph, ManifestNode
from lifecycle.oci.client import BlobUnknown, ManifestUnknown, RegistryClient
from lifecycle.oci.constants import CONFIG_MAX_BYTES, GRAPH_DEPTH_MAX, GRAPH_NODES_MAX
from lifecycle.oci.manifests import load_json, parse, parse_config
from lifecycle.oci.types import IndexDocument, ManifestContent, ManifestDocument

log = structlog.get_logger(__name__)

Known = Callable[[str], ManifestContent | None]  # returns the stored manifest of a digest, if any
IsPresent = Callable[[str], bool]  # returns whether our rows have the digest in this repository
Alive = Callable[[], None]  # called between two downloads; raises when another worker has the job


def read_graph(
    client: RegistryClient,
    repository: str,
    top: Digest,
    *,
    known: Known = lambda _: None,
    is_present: IsPresent = lambda _: False,
    alive: Alive = lambda: None,
) -> Graph:
    """Return `top` and all manifests below it in `repository`, children before parents, each once.

    Manifests that `known` returns are not fetched again, and neither are their configurations, because their rows
    exist. But knowing a digest is no proof that this repository has it: unless `is_present`, the registry is asked.

    A child that is no manifest by its media type is not fetched. A child that the registry does not have, or that is
    malformed, is skipped and logged: the index is incomplete there.
    Raises ManifestUnknown when `top` itself is missing, MalformedManifest, LimitExceeded.
    """
    done: dict[str, ManifestNode] = {}
    pending: set[str] = set()

    def visit(digest: Digest, depth: int) -> None:
        if digest.text in done:
            return
        if digest.text in pending:
            raise LimitExceeded("The index contains itself.", limit=GRAPH_DEPTH_MAX)
        if depth > GRAPH_DEPTH_MAX:
            raise LimitExceeded(f"Indexes are nested deeper than {GRAPH_DEPTH_MAX}.", limit=GRAPH_DEPTH_MAX)
        if len(done) + len(pending) >= GRAPH_NODES_MAX:
            raise LimitExceeded(f"The index contains more than {GRAPH_NODES_MAX} manifests.", limit=GRAPH_NODES_MAX)
        alive()
        stored = known(digest.text)
        if stored is not None and not is_present(digest.text) and client.resolve(repository, digest.text) is None:
            raise ManifestUnknown("The registry does not have this manifest.", repository=repository)
        content = stored or client.get_manifest(repository, digest.text)
        document = parse(content)
        pending.add(digest.text)
        if isinstance(document, IndexDocument):
            for child in document.manifests:
                if not child.is_manifest:
                    continue
                try:
                    visit(child.digest, depth + 1)
                except (ManifestUnknown, MalformedManifest) as error:
                    pending.discard(child.digest.text)
                    log.warning("index_child_missing", child=child.digest.text, code=error.error_code)
        pending.discard(digest.text)
        if isinstance(document, ManifestDocument) and document.is_image and stored is None:
            done[digest.text] = _with_config(client, repository, content, document)
        else:
            done[digest.text] = ManifestNode(content, document)

    visit(top, 0)
    return Graph(top, tuple(done.values()))


def _with_config(
    client: RegistryClient, repository: str, content: ManifestContent, document: ManifestDocument
) -> ManifestNode:
    """Return the node with its configuration, or without it when the blob is missing or not an image configuration.

    An artifact can have the media type of an image, as cosign's legacy signatures do. Such a manifest is stored
    without a configuration.
    """
    if document.config.size_bytes > CONFIG_MAX_BYTES:
        raise LimitExceeded(f"The configuration is larger than {CONFIG_MAX_BYTES} bytes.", limit=CONFIG_MAX_BYTES)
    try:
        raw = client.get_blob(repository, document.config.digest, max_bytes=CONFIG_MAX_BYTES)
    except BlobUnknown:
        log.warning("image_config_missing", repository=repository, digest=document.digest.text)
        return ManifestNode(content, document)
    try:
        parsed: Any = load_json(raw, "configuration")
        return ManifestNode(content, document, parse_config(raw, document.config.digest), parsed)
    except Malformed as error:
        log.warning("image_config_unreadable", digest=document.digest.text, problem=error.message)
        return ManifestNode(content, document)
