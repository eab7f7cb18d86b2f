"""What we ask of a registry. `clients.client_for` gives the real one, `tests.fakes.registry` one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from lifecycle.core.errors import RegistryRefused
from lifecycle.core.types import Digest
from lifecycle.oci.constants import BLOB_MAX_BYTES
from lifecycle.oci.types import Descriptor, ManifestContent


class ManifestUnknown(RegistryRefused):
    """The registry has no such manifest, tag or repository (or hides it from us)."""

    code: ClassVar[str] = "manifest_unknown"


class BlobUnknown(RegistryRefused):
    """The registry has no such blob in that repository."""

    code: ClassVar[str] = "blob_unknown"


class DigestMismatch(RegistryRefused):
    """What came is not what its digest names."""

    code: ClassVar[str] = "digest_mismatch"


class RegistryClient(Protocol):
    """One registry, with our credentials for it.

    Every method may raise RegistryUnavailable (worth a retry) or RegistryRefused (not); `reference` is a tag or the
    text of a digest. Nothing here may be called inside a database transaction.
    """

    def resolve(self, repository: str, reference: str) -> Descriptor | None:
        """Return the descriptor that `reference` points at now, None when there is none."""

    def get_manifest(self, repository: str, reference: str) -> ManifestContent:
        """Return the manifest's exact bytes, their digest computed and checked; raises ManifestUnknown."""

    def get_manifest_if_changed(self, repository: str, reference: str, known: Digest) -> ManifestContent | None:
        """As `get_manifest`, but None when `reference` still is `known`: cheap, and no pull event."""

    def get_blob(self, repository: str, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob, checked; raises BlobUnknown, DigestMismatch, LimitExceeded."""

    def fetch_blob(
        self,
        repository: str,
        digest: Digest,
        into: BinaryIO,
        *,
        size_bytes: int | None = None,
        max_bytes: int = BLOB_MAX_BYTES,
    ) -> int:
        """Write a blob to `into` (seekable; written from its present position) and return its length, checked."""

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return the length of a blob in bytes, None when the repository has none."""

    def mount_blob(self, repository: str, digest: Digest, *, source_repository: str) -> bool:
        """Make a blob of another repository of this registry present in `repository`; False when it will not."""

    def upload_blob(self, repository: str, digest: Digest, content: bytes | Path) -> None:
        """Put a blob; nothing happens when it is there already."""

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> Digest:
        """Put these exact bytes at a tag or at their own digest; return the digest the registry reports, checked."""

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Delete a manifest and with it all its tags; False when it was not there."""

    def tags(self, repository: str) -> list[str]:
        """Return all tags, sorted, those that only carry referrers included; empty for an unknown repository."""

    def repositories(self) -> Iterator[str]:
        """Yield the names in the catalog; a registry that hides its catalog raises RegistryRefused."""

    def referrers(self, repository: str, digest: Digest) -> list[Descriptor]:
        """Return what says that it refers to `digest`: from the referrers API, else the fallback tag. Unverified."""
