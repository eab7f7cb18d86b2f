"""The interface of registry clients. `clients.client_for` returns the real one; `tests.fakes.registry` is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from lifecycle.core.errors import RegistryRefused
from lifecycle.core.types import Digest
from lifecycle.oci.constants import BLOB_MAX_BYTES
from lifecycle.oci.types import Descriptor, ManifestContent


class ManifestUnknown(RegistryRefused):
    """The registry does not have this manifest, tag or repository, or hides it from us."""

    code: ClassVar[str] = "manifest_unknown"


class BlobUnknown(RegistryRefused):
    """The registry does not have this blob in this repository."""

    code: ClassVar[str] = "blob_unknown"


class DigestMismatch(RegistryRefused):
    """The content from the registry does not match its digest."""

    code: ClassVar[str] = "digest_mismatch"


class CredentialsRefused(RegistryRefused):
    """The registry does not accept our user name and password, or wants some and we have none."""

    code: ClassVar[str] = "registry_credentials_refused"


class AccessDenied(RegistryRefused):
    """The registry knows us, and does not allow this: a right is missing, or a rule of the registry forbids it."""

    code: ClassVar[str] = "registry_access_denied"


class QuotaExceeded(RegistryRefused):
    """The registry has no room left for us."""

    code: ClassVar[str] = "registry_quota_exceeded"


class RegistryClient(Protocol):
    """One registry, with our credentials for it.

    Every method can raise RegistryUnavailable (a retry can help) or RegistryRefused (it cannot). `reference` is a tag
    or the text of a digest. Do not call these methods inside a database transaction.
    """

    def check(self) -> None:
        """Raise RegistryUnavailable when the registry as a whole does not answer."""

    def resolve(self, repository: str, reference: str) -> Descriptor | None:
        """Return the descriptor that `reference` points at now, or None when it does not exist."""

    def get_manifest(self, repository: str, reference: str) -> ManifestContent:
        """Return the exact bytes of a manifest, with their digest computed and checked; raises ManifestUnknown."""

    def get_manifest_if_changed(self, repository: str, reference: str, known: Digest) -> ManifestContent | None:
        """As `get_manifest`, but return None when `reference` still points at `known`. Cheap, without a pull event."""

    def get_blob(self, repository: str, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob, with its digest checked; raises BlobUnknown, DigestMismatch, LimitExceeded."""

    def fetch_blob(
        self,
        repository: str,
        digest: Digest,
        into: BinaryIO,
        *,
        size_bytes: int | None = None,
        max_bytes: int = BLOB_MAX_BYTES,
    ) -> int:
        """Write a blob to the seekable `into` from its present position, check it, and return its length in bytes."""

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return the length of a blob in bytes, or None when the repository does not have it."""

    def mount_blob(self, repository: str, digest: Digest, *, source_repository: str) -> bool:
        """Mount a blob from another repository of this registry; return False when the registry does not do it."""

    def upload_blob(self, repository: str, digest: Digest, content: bytes | Path) -> None:
        """Upload a blob, unless the repository already has it."""

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> Digest:
        """Put these exact bytes at a tag or at their own digest; return the digest, checked against the registry's."""

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Delete a manifest and all its tags; return False when it does not exist."""

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Delete a tag and keep its manifest; return False when it does not exist."""

    def tags(self, repository: str) -> list[str]:
        """Return all tags, sorted, including tags for referrers; an empty list for an unknown repository."""

    def repositories(self) -> Iterator[str]:
        """Yield the repository names in the catalog; raises RegistryRefused when the registry hides its catalog."""

    def referrers(self, repository: str, digest: Digest) -> list[Descriptor]:
        """Return the listed referrers of `digest`, from the referrers API or else the fallback tag. Not verified."""
