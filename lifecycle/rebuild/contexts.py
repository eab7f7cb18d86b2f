"""The build context of a recipe, stored as an artifact in the recipe's own repository."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import orjson

from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient

ARTIFACT_TYPE: Final = "application/vnd.gravingdock.build-context.v1"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"  # image-spec manifest.md, "Guidance for an empty descriptor"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONTEXT_MAX: Final = 32 * 1024 * 1024  # bytes of all files


def store(client: RegistryClient, repository: str, files: Mapping[str, bytes]) -> str:
    """Push the files as one artifact and return its digest. Equal files give the same digest.

    Raises Malformed, LimitExceeded.
    """
    raw = io.BytesIO()
    if sum(len(content) for content in files.values()) > CONTEXT_MAX:
        raise LimitExceeded(f"A build context has at most {CONTEXT_MAX} bytes.")
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(_checked(name))
            member.size, member.mode = len(files[name]), 0o644
            archive.addfile(member, io.BytesIO(files[name]))
    layer, config = raw.getvalue(), b"{}"
    client.upload_blob(repository, Digest.of(layer), layer)
    client.upload_blob(repository, Digest.of(config), config)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": Digest.of(config).text, "size": len(config)},
        "layers": [{"mediaType": LAYER_TYPE, "digest": Digest.of(layer).text, "size": len(layer)}],
    }
    content = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    digest = Digest.of(content)
    # It needs a tag: garbage collection of the registry removes untagged manifests.
    client.put_manifest(repository, f"build-context-{digest.encoded[:16]}", content, MANIFEST_TYPE)
    return digest.text


def unpack(client: RegistryClient, repository: str, digest: str, folder: Path) -> None:
    """Write the plain files of a stored context below `folder`. Raises Malformed for other files, or invalid names."""
    document = orjson.loads(client.get_manifest(repository, digest).content)
    if document.get("artifactType") != ARTIFACT_TYPE:
        raise Malformed("The digest is not a build context.")
    blob = Digest.parse(document["layers"][0]["digest"])
    content = client.get_blob(repository, blob, max_bytes=2 * CONTEXT_MAX)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is None:
                raise Malformed("A build context can only contain plain files.")
            path = folder / _checked(member.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or not name.isprintable() or str(path) != name:
        raise Malformed("A file name in a build context must be a relative path without special parts.", got=name[:100])
    return name
