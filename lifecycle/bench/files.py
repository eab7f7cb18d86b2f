"""Files for the ingest bench: an inventory to import, and small images to push."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from lifecycle.bench.dataset import PlannedImage, PlannedInventory
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.constants import MediaType

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def write_inventories(images: Iterable[PlannedImage], path: Path) -> None:
    """Write one row per image for `manage.py import_inventory` (docs/reference/inventory-format.md)."""
    known: dict[tuple[str, int], bytes] = {}  # packages of an inventory as JSON, because images share inventories
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for image in images:
            row = {
                "registry": "registry.example.com",
                "repository": image.repository,
                "tag": image.tag,
                "platform": "linux/amd64",
                "manifest_digest": image.digest,
                "os": {"name": "debian", "version": "12"},
                "diff_ids": [layer.diff_id for layer in image.layers],
                "layers": [layer.digest for layer in image.layers],
                "layer_sizes": [layer.size_bytes for layer in image.layers],
            }
            packages = b",".join(_packages(item, known) for item in image.inventories)
            stream.write(orjson.dumps(row)[:-1] + b',"packages":[' + packages + b"]}\n")


def _packages(item: PlannedInventory, known: dict[tuple[str, int], bytes]) -> bytes:
    key = (item.key, item.layer_position)
    if key not in known:
        if len(known) > 5000:
            known.clear()
        rows = [
            {
                "purl": package.purl,
                "source_name": package.source_name,
                "source_version": package.source_version,
                "layer": item.layer_position,
            }
            for package in item.packages
        ]
        known[key] = orjson.dumps(rows)[1:-1]
    return known[key]


@dataclass(frozen=True, slots=True)
class SmallImage:
    """An image with two small layers: one that all images share, and one of its own."""

    blobs: dict[str, bytes]  # by digest
    manifest: bytes

    @property
    def digest(self) -> str:
        return Digest.of(self.manifest).text


def small_image(text: str) -> SmallImage:
    """Return an image whose second layer contains `text`."""
    layers = [_layer("the base of all"), _layer(text)]
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/true"], "Labels": {"org.opencontainers.image.title": text}},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(raw).text for _, raw in layers]},
        "history": [{"created_by": f"COPY {text}"} for _ in layers],
    }
    packed = [content for content, _ in layers]
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": _descriptor(MediaType.OCI_CONFIG.value, orjson.dumps(config)),
        "layers": [_descriptor(_LAYER, content) for content in packed],
    }
    blobs = {Digest.of(content).text: content for content in (*packed, orjson.dumps(config))}
    return SmallImage(blobs, orjson.dumps(document))


def push_blobs(client: RegistryClient, repository: str, image: SmallImage) -> None:
    """Upload the layers and the config of an image."""
    for digest, content in image.blobs.items():
        client.upload_blob(repository, Digest.parse(digest), content)


def push_manifest(client: RegistryClient, repository: str, image: SmallImage, tag: str) -> None:
    """Push the manifest under a tag, which completes the push."""
    client.put_manifest(repository, tag, image.manifest, MediaType.OCI_MANIFEST.value)


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(content).text, "size": len(content)}


def _layer(text: str) -> tuple[bytes, bytes]:
    """Return (compressed, uncompressed) content of a layer with one file."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo("srv/" + hashlib.sha256(text.encode()).hexdigest()[:12])
        member.size = len(text.encode())
        archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue(), mtime=0), raw.getvalue()
