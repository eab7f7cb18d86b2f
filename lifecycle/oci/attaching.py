"""Attach artifacts to an image: OCI referrers, and cosign's `.sig` tag. Doing it again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from lifecycle.core.types import Digest
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.oci.constants import MediaType
from lifecycle.oci.copying import merge_fallback
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.types import Descriptor, ManifestContent

_EMPTY: Final = b"{}"
_SIGNATURE_CONFIG: Final = b'{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'


def attach_referrer(
    client: RegistryClient,
    repository: str,
    subject: ManifestContent,
    content: bytes,
    *,
    artifact_type: str,
    annotations: Mapping[str, str],
) -> Digest:
    """Push an artifact with one layer that refers to `subject`, and return its digest.

    Where the registry has no referrers API, its list at the fallback tag is merged. Raises RegistryUnavailable,
    RegistryRefused, CopyNotVerified.
    """
    for blob in (content, _EMPTY):
        client.upload_blob(repository, Digest.of(blob), blob)
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "artifactType": artifact_type,
        "config": {"mediaType": MediaType.EMPTY.value, "digest": Digest.of(_EMPTY).text, "size": len(_EMPTY)},
        "layers": [{"mediaType": artifact_type, "digest": Digest.of(content).text, "size": len(content)}],
        "subject": {
            "mediaType": subject.media_type, "digest": subject.digest.text, "size": len(subject.content),
        },
        "annotations": dict(annotations),
    }  # fmt: skip
    manifest = json.dumps(document, separators=(",", ":")).encode()
    digest = client.put_manifest(repository, Digest.of(manifest).text, manifest, MediaType.OCI_MANIFEST)
    listed = {entry.digest for entry in client.referrers(repository, subject.digest)}
    if digest not in listed:
        entry = Descriptor(
            MediaType.OCI_MANIFEST, digest, len(manifest), dict(annotations), artifact_type=artifact_type
        )
        merge_fallback(client, repository, subject.digest, [entry])
    return digest


def add_signature_layer(
    client: RegistryClient,
    repository: str,
    subject: Digest,
    payload: bytes,
    *,
    media_type: str,
    annotations: Mapping[str, str],
) -> Digest:
    """Add a layer to the manifest at the subject's `.sig` tag, keep its other layers, and return its new digest."""
    tag = fallback_tag(subject) + ".sig"
    for blob in (payload, _SIGNATURE_CONFIG):
        client.upload_blob(repository, Digest.of(blob), blob)
    layers: list[dict[str, object]] = []
    try:
        present = json.loads(client.get_manifest(repository, tag).content)
        layers = present.get("layers") or []
    except (ManifestUnknown, ValueError):
        layers = []
    layer = {
        "mediaType": media_type,
        "digest": Digest.of(payload).text,
        "size": len(payload),
        "annotations": dict(annotations),
    }
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": {
            "mediaType": MediaType.OCI_CONFIG.value,
            "digest": Digest.of(_SIGNATURE_CONFIG).text,
            "size": len(_SIGNATURE_CONFIG),
        },
        "layers": [*layers, layer],
    }
    manifest = json.dumps(document, separators=(",", ":")).encode()
    return client.put_manifest(repository, tag, manifest, MediaType.OCI_MANIFEST)
