"""OCI documents and small images, put where any RegistryClient reaches: dull, and the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.constants import MediaType
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.types import ManifestContent
from lifecycle.registry.constants import HELM_CHART

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY_CONFIG = b"{}"


@dataclass(frozen=True, slots=True)
class OciImage:
    """One platform image: blobs by digest, and the manifest's bytes."""

    manifest: ManifestContent
    config: dict[str, Any]
    blobs: dict[str, bytes]
    diff_ids: list[str]


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer(text: str) -> tuple[bytes, bytes]:
    """Return (compressed, uncompressed) of a layer that holds one small file."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo("etc/" + hashlib.sha256(text.encode()).hexdigest()[:12])
        member.size = len(text.encode())
        archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue(), mtime=0), raw.getvalue()


def image(
    *layers: str,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    architecture: str = "amd64",
) -> OciImage:
    """Return an image whose layers are made from these texts; equal texts are equal layers."""
    made = [layer(text) for text in layers]
    diff_ids = [sha(raw) for _, raw in made]
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-11-01T10:00:00.123456789Z",
        "config": {"Cmd": ["/bin/true"], "Labels": labels or {}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": f"COPY {text}"} for text in layers]
        + [{"created_by": "CMD true", "empty_layer": True}],
    }
    config_bytes = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": {"mediaType": MediaType.OCI_CONFIG.value, "digest": sha(config_bytes), "size": len(config_bytes)},
        "layers": [{"mediaType": GZIP_LAYER, "digest": sha(packed), "size": len(packed)} for packed, _ in made],
    }
    if annotations:
        manifest["annotations"] = annotations
    content = json.dumps(manifest).encode()
    blobs = {sha(packed): packed for packed, _ in made} | {sha(config_bytes): config_bytes}
    return OciImage(ManifestContent(Digest.of(content), MediaType.OCI_MANIFEST.value, content), config, blobs, diff_ids)


def index(*images: OciImage, annotations: dict[str, str] | None = None) -> ManifestContent:
    """Return an index over images, each on the platform its configuration says."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_INDEX.value,
        "manifests": [
            {
                "mediaType": item.manifest.media_type,
                "digest": item.manifest.digest.text,
                "size": len(item.manifest.content),
                "platform": {"os": "linux", "architecture": item.config["architecture"]},
            }
            for item in images
        ],
    }
    if annotations:
        document["annotations"] = annotations
    content = json.dumps(document).encode()
    return ManifestContent(Digest.of(content), MediaType.OCI_INDEX.value, content)


def chart(text: str) -> OciImage:
    """Return a Helm chart as `helm push` stores it: https://helm.sh/docs/topics/registries/."""
    config = json.dumps({"name": "shop", "version": "1.2.0", "apiVersion": "v2", "description": text}).encode()
    packed = gzip.compress(text.encode(), mtime=0)
    kinds = (HELM_CHART, "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": {"mediaType": kinds[0], "digest": sha(config), "size": len(config)},
        "layers": [{"mediaType": kinds[1], "digest": sha(packed), "size": len(packed)}],
    }
    content = json.dumps(document).encode()
    manifest = ManifestContent(Digest.of(content), MediaType.OCI_MANIFEST.value, content)
    return OciImage(manifest, {}, {sha(config): config, sha(packed): packed}, [])


def artifact(subject: ManifestContent, text: str, kind: str = "application/vnd.example.note") -> OciImage:
    """Return an artifact that refers to `subject`."""
    payload = text.encode()
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "artifactType": kind,
        "config": {"mediaType": MediaType.EMPTY.value, "digest": sha(EMPTY_CONFIG), "size": 2},
        "layers": [{"mediaType": kind, "digest": sha(payload), "size": len(payload)}],
        "subject": {
            "mediaType": subject.media_type,
            "digest": subject.digest.text,
            "size": len(subject.content),
        },
    }
    content = json.dumps(document).encode()
    return OciImage(
        ManifestContent(Digest.of(content), MediaType.OCI_MANIFEST.value, content),
        {},
        {sha(payload): payload, sha(EMPTY_CONFIG): EMPTY_CONFIG},
        [],
    )


def push(client: RegistryClient, repository: str, item: OciImage, reference: str = "") -> Digest:
    """Put an image with its blobs at a tag, or by digest."""
    for digest, content in item.blobs.items():
        client.upload_blob(repository, Digest.parse(digest), content)
    return push_manifest(client, repository, item.manifest, reference)


def push_manifest(client: RegistryClient, repository: str, content: ManifestContent, reference: str = "") -> Digest:
    return client.put_manifest(repository, reference or content.digest.text, content.content, content.media_type)


def attach(client: RegistryClient, repository: str, content: ManifestContent) -> None:
    """Put an artifact, its blobs being there, and list it under the fallback tag of what it refers to."""
    document = json.loads(content.content)
    entry = {
        "mediaType": content.media_type,
        "digest": content.digest.text,
        "size": len(content.content),
        "artifactType": document["artifactType"],
    }
    push_manifest(client, repository, content)
    tag = fallback_tag(Digest.parse(document["subject"]["digest"]))
    listed: list[dict[str, Any]] = []
    if client.resolve(repository, tag) is not None:
        listed = json.loads(client.get_manifest(repository, tag).content)["manifests"]
    fresh = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX.value, "manifests": [*listed, entry]}
    client.put_manifest(repository, tag, json.dumps(fresh).encode(), MediaType.OCI_INDEX.value)


def layout(folder: Path, item: OciImage) -> Path:
    """Write an OCI layout that skopeo and buildah read as `oci:<folder>:latest`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, content in {**item.blobs, item.manifest.digest.text: item.manifest.content}.items():
        (blobs / digest.partition(":")[2]).write_bytes(content)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {
        "mediaType": item.manifest.media_type,
        "digest": item.manifest.digest.text,
        "size": len(item.manifest.content),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder
