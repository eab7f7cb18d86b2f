"""A registry in memory, as strict as CNCF Distribution 2.8: it passes the same contract tests as the HTTP client."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from lifecycle.core.errors import LimitExceeded, RegistryRefused, RegistryUnavailable
from lifecycle.core.types import Digest, parse_repository_name
from lifecycle.oci.client import BlobUnknown, DigestMismatch, ManifestUnknown, RegistryClient
from lifecycle.oci.constants import BLOB_MAX_BYTES
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.manifests import parse_links
from lifecycle.oci.types import Descriptor, ManifestContent
from lifecycle.registry.clients import client_for


def answer_with(client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every package use `client`, whatever the registry. One that is forgotten asks the network, and waits."""
    for name, module in list(sys.modules.items()):
        if name.startswith("lifecycle.") and name != client_for.__module__ and hasattr(module, "client_for"):
            monkeypatch.setattr(module, "client_for", lambda registry: client)


class InMemoryRegistry:
    """A RegistryClient without a network. `calls` lists what was asked; `fail_after` dies at the n-th write.

    Each call for a repository or reference in `broken` fails as with a status of 500. `is_down` makes every call fail.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.manifests: dict[str, dict[str, ManifestContent]] = defaultdict(dict)
        self.tags_of: dict[str, dict[str, str]] = defaultdict(dict)
        self.calls: list[tuple[str, ...]] = []
        self.mounts = True
        self.fail_after: int | None = None
        self.broken: set[str] = set()
        self.is_down = False
        self._writes = 0

    def _write(self, *call: str) -> None:
        self.calls.append(call)
        self._writes += 1
        if self.fail_after is not None and self._writes > self.fail_after:
            raise RegistryUnavailable("The registry died here.")

    def _ask(self, *names: str) -> None:
        if self.is_down or self.broken & {*names}:
            raise RegistryUnavailable(f"The registry answered 500 for {':'.join(names)}.")

    def _find(self, repository: str, reference: str) -> ManifestContent | None:
        parse_repository_name(repository)
        self._ask(repository, reference)
        digest = reference if ":" in reference else self.tags_of[repository].get(reference, "")
        if digest in self.blobs[repository]:
            raise RegistryUnavailable(f"The registry answered 500 for {repository}@{digest}.")  # as Distribution 2.8
        return self.manifests[repository].get(digest)

    def check(self) -> None:
        self._ask()

    def resolve(self, repository: str, reference: str) -> Descriptor | None:
        found = self._find(repository, reference)
        return Descriptor(found.media_type, found.digest, len(found.content)) if found else None

    def get_manifest(self, repository: str, reference: str) -> ManifestContent:
        self.calls.append(("get_manifest", repository, reference))
        found = self._find(repository, reference)
        if found is None:
            raise ManifestUnknown("The registry does not have this manifest.")
        return found

    def get_manifest_if_changed(self, repository: str, reference: str, known: Digest) -> ManifestContent | None:
        found = self._find(repository, reference)
        if found is None:
            raise ManifestUnknown("The registry does not have this manifest.")
        return None if found.digest == known else found

    def get_blob(self, repository: str, digest: Digest, *, max_bytes: int) -> bytes:
        self._ask(repository, digest.text)
        content = self.blobs[repository].get(digest.text)
        if content is None:
            raise BlobUnknown("The registry does not have this blob.")
        if len(content) > max_bytes:
            raise LimitExceeded("Too long.")
        return content

    def fetch_blob(
        self,
        repository: str,
        digest: Digest,
        into: BinaryIO,
        *,
        size_bytes: int | None = None,
        max_bytes: int = BLOB_MAX_BYTES,
    ) -> int:
        content = self.get_blob(repository, digest, max_bytes=max_bytes if size_bytes is None else size_bytes)
        if size_bytes is not None and len(content) < size_bytes:
            raise RegistryRefused("The blob is smaller than its manifest declares.")
        into.write(content)
        return len(content)

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        content = self.blobs[repository].get(digest.text)
        return None if content is None else len(content)

    def mount_blob(self, repository: str, digest: Digest, *, source_repository: str) -> bool:
        self._write("mount_blob", repository, digest.text)
        content = self.blobs[source_repository].get(digest.text)
        if content is None or not self.mounts:
            return False
        self.blobs[repository][digest.text] = content
        return True

    def upload_blob(self, repository: str, digest: Digest, content: bytes | Path) -> None:
        if digest.text in self.blobs[parse_repository_name(repository)]:
            return
        self._write("upload_blob", repository, digest.text)
        raw = content if isinstance(content, bytes) else content.read_bytes()
        if hashlib.new(digest.algorithm, raw).hexdigest() != digest.encoded:
            raise RegistryRefused("The registry answered 400: DIGEST_INVALID.")
        self.blobs[repository][digest.text] = raw

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> Digest:
        self._write("put_manifest", repository, reference)
        manifest = ManifestContent(Digest.of(content), media_type, content)
        links = parse_links(manifest)
        present = self.manifests[repository].keys() | self.blobs[repository].keys()
        if any(entry.digest.text not in present for entry in (*links.manifests, *links.blobs)):
            raise RegistryRefused("The registry answered 400: MANIFEST_BLOB_UNKNOWN.")
        if ":" in reference and reference != manifest.digest.text:
            raise DigestMismatch("The registry answered 400: DIGEST_INVALID.")
        self.manifests[repository][manifest.digest.text] = manifest
        if ":" not in reference:
            self.tags_of[repository][reference] = manifest.digest.text
        return manifest.digest

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        self._write("delete_manifest", repository, digest.text)
        self.tags_of[repository] = {t: d for t, d in self.tags_of[repository].items() if d != digest.text}
        return self.manifests[repository].pop(digest.text, None) is not None

    def delete_tag(self, repository: str, tag: str) -> bool:
        self._write("delete_tag", repository, tag)
        return self.tags_of[repository].pop(tag, None) is not None

    def tags(self, repository: str) -> list[str]:
        self._ask(repository)
        return sorted(self.tags_of[repository])

    def repositories(self) -> Iterator[str]:
        self._ask()
        yield from sorted(name for name, manifests in self.manifests.items() if manifests)

    def referrers(self, repository: str, digest: Digest) -> list[Descriptor]:
        found = self._find(repository, fallback_tag(digest))
        if found is None or not found.is_index:
            return []
        links = parse_links(found)
        return [*links.manifests, *links.blobs]


def blob(registry: InMemoryRegistry, repository: str, content: bytes, media_type: str) -> dict[str, object]:
    """Put a blob and return its descriptor as JSON has it."""
    digest = Digest.of(content)
    registry.upload_blob(repository, digest, content)
    return {"mediaType": media_type, "digest": digest.text, "size": len(content)}


def as_bytes(document: object) -> bytes:
    """Return a document as a client would send it."""
    return json.dumps(document).encode()
