"""Trusted sources for tests, and signed images in any registry."""

from __future__ import annotations

import json
from typing import Any

from accounts.models import User
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.constants import MediaType
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.types import ManifestContent
from lifecycle.signatures.constants import BUNDLE_V03, SIGNATURE_ANNOTATION, SIMPLE_SIGNING
from lifecycle.trust import services
from lifecycle.trust.models import TrustedSource
from lifecycle.trust.types import parse_source
from tests.factories import oci
from tests.factories.signatures import b64, key_bundle, pem_of, sign, simple_signing


def key_signer(key: Any, name: str = "release key") -> dict[str, Any]:
    return {"kind": "key", "name": name, "pem": pem_of(key)}


def source(
    actor: User, name: str, *places: str, signers: list[dict[str, Any]] | None = None, **more: Any
) -> TrustedSource:
    """Return a source for all teams, or for the `teams` given."""
    fields: dict[str, Any] = {"name": name, "places": list(places), "signers": signers or []}
    fields |= {"needs_signature": bool(signers), "is_site_wide": "teams" not in more}
    return services.create_source(parse_source(fields | more), actor=actor)


def attach(client: RegistryClient, repository: str, subject: ManifestContent, text: str, kind: str) -> ManifestContent:
    """Push an artifact that refers to `subject`, and add it to the list at the fallback tag."""
    item = oci.artifact(subject, text, kind)
    for digest, content in item.blobs.items():
        client.upload_blob(repository, Digest.parse(digest), content)
    oci.attach(client, repository, item.manifest)
    return item.manifest


def attach_bundle(
    client: RegistryClient, repository: str, subject: ManifestContent, key: Any, payload: bytes
) -> ManifestContent:
    return attach(client, repository, subject, json.dumps(key_bundle(key, payload=payload)), BUNDLE_V03)


def attach_simple_signature(client: RegistryClient, repository: str, subject: Digest, key: Any) -> None:
    """Put cosign's `.sig` tag for `subject`, with one signature by `key`."""
    payload = simple_signing(subject.text)
    config = b'{"rootfs":{"type":"layers","diff_ids":[]},"os":"","architecture":""}'
    layer = {
        "mediaType": SIMPLE_SIGNING,
        "digest": oci.sha(payload),
        "size": len(payload),
        "annotations": {SIGNATURE_ANNOTATION: b64(sign(key, payload))},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": {"mediaType": MediaType.OCI_CONFIG.value, "digest": oci.sha(config), "size": len(config)},
        "layers": [layer],
    }
    for content in (payload, config):
        client.upload_blob(repository, Digest.of(content), content)
    content = json.dumps(manifest).encode()
    client.put_manifest(repository, fallback_tag(subject) + ".sig", content, MediaType.OCI_MANIFEST.value)
