"""SBOMs that a registry holds of an image: attestations, documents as they are, and what BuildKit adds to an index."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from accounts.models import User
from accounts.queries import system_user
from lifecycle.core.errors import LifecycleError, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.oci.manifests import parse_links
from lifecycle.oci.types import ManifestContent
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, RepositoryImage
from lifecycle.registry.platforms import platform_ids
from lifecycle.sbom import brought
from lifecycle.sbom.documents import DOCUMENT_MAX, Document, read_document, read_value
from lifecycle.sbom.models import PackageList
from lifecycle.signatures.bundles import parse_bundle
from lifecycle.signatures.dsse import parse_envelope, parse_statement
from lifecycle.signatures.types import SignatureRefused
from lifecycle.trust import types
from lifecycle.trust.kinds import READ_SBOMS
from lifecycle.trust.models import Signature
from lifecycle.trust.types import is_sbom
from lifecycle.trust.verifying import PLAIN_SBOM, iter_documents

READ_AT_ONCE: Final = 10  # new SBOMs of one image and run
UNSIGNED_MAX: Final = 5  # SBOMs of a registry that nobody trusted signed are kept while there are fewer
_ENVELOPE_MAX: Final = DOCUMENT_MAX + DOCUMENT_MAX // 2  # base64 makes four bytes of three
_REFERENCE: Final = "vnd.docker.reference.digest"  # in BuildKit's entry of an index: the platform that it is about
_OURS: Final = "gravingdock:distro"  # what our own exports say: a promotion attests what we judged


@dataclass(frozen=True, slots=True)
class Attached:
    """One SBOM, read. With a `problem` it is refused for this reason."""

    digest: str  # of the platform manifest
    repository: Repository
    object_digest: str
    document: Document | None = None
    content: bytes = b""
    problem: str = ""


def queue_read(image_id: int, *, actor: User | None = None) -> Job:
    """Queue the reading of an image's SBOMs. An equal waiting job is reused."""
    return jobs.queue(READ_SBOMS, subject_id=image_id, actor=actor or system_user(), dedupe_key=f"image:{image_id}")


def read_attached(image: Image, *, alive: Callable[[], None]) -> Iterator[Attached]:
    """Yield the new SBOMs of an image, or of the platforms of an index, in every repository of ours that has it.

    Makes requests, so call it outside a transaction. Raises RegistryUnavailable when a retry can help.
    """
    ids = {image.pk, *platform_ids(image)}
    known = set(
        PackageList.objects.filter(image__in=ids).exclude(object_digest="").values_list("object_digest", flat=True)
    )
    members = RepositoryImage.objects.filter(image=image, removed_at=None).select_related("repository__registry")
    count = 0
    for member in members.order_by("id"):
        if not member.repository.registry.is_ours:
            continue
        client = client_for(member.repository.registry)
        try:
            for found in _attached_in(client, member.repository, image, known, alive):
                known.add(found.object_digest)
                yield found
                count += 1
                if count >= READ_AT_ONCE:
                    return
        except ManifestUnknown:
            continue
        except RegistryUnavailable:
            raise
        except LifecycleError as error:
            yield Attached(image.digest, member.repository, "", problem=error.message)


def _attached_in(
    client: RegistryClient, repository: Repository, image: Image, known: set[str], alive: Callable[[], None]
) -> Iterator[Attached]:
    name = repository.name
    top = client.get_manifest(name, Digest.parse(image.digest).text)
    platforms = _platforms_of(top)
    for found in iter_documents(client, name, top, alive, max_bytes=_ENVELOPE_MAX, with_sboms=True, known=known):
        digest = platforms.get(found.manifest_digest, "") if top.is_index else image.digest
        try:
            if found.format == PLAIN_SBOM:
                content = client.get_blob(name, Digest.parse(found.object_digest), max_bytes=DOCUMENT_MAX)
                document = read_document(content)
            else:
                payload = _payload_of(found)
                statement = parse_statement(payload) if payload else None
                if statement is None or not is_sbom(statement.predicate_type) or _is_ours(statement.predicate):
                    continue
                if digest and not statement.names(digest):
                    continue  # it is about other content, and proves nothing here
                document, content = read_value(_predicate(statement.predicate)), payload
        except SignatureRefused:
            continue  # the check of signatures says why
        except RegistryUnavailable:
            raise
        except LifecycleError as error:
            yield Attached(digest or image.digest, repository, found.object_digest, problem=error.message)
            continue
        if not digest:
            problem = "It is about an index. An SBOM is about one platform."
            yield Attached(image.digest, repository, found.object_digest, problem=problem)
            continue
        yield Attached(digest, repository, found.object_digest, document, content)


def _platforms_of(top: ManifestContent) -> Mapping[str, str]:
    """Return {digest of BuildKit's attestation manifest: digest of the platform that it is about} of an index."""
    if not top.is_index:
        return {}
    return {entry.digest.text: entry.annotations.get(_REFERENCE, "") for entry in parse_links(top).manifests}


def _payload_of(found: types.Document) -> bytes:
    """Return the in-toto statement in an attestation, b"" for a signature. `verifying` says who signed it."""
    if found.problem or found.format in {"simplesigning", "notation"}:
        return b""
    if found.format == "buildkit":
        return found.content
    envelope = parse_bundle(found.content).envelope if found.format == "bundle" else parse_envelope(found.content)
    return envelope.payload if envelope is not None else b""


def _predicate(value: Any) -> dict[str, Any]:
    """Return the SBOM in a predicate: cosign wraps it in `Data`, also as text."""
    inner = value.get("Data") if isinstance(value, dict) else None
    if isinstance(inner, dict):
        return inner
    return value if isinstance(value, dict) else {}


def _is_ours(predicate: Any) -> bool:
    """Return whether a promotion of ours attested this: it is what we judged, and would only repeat an old scan."""
    metadata = predicate.get("metadata") if isinstance(predicate, dict) else None
    properties = metadata.get("properties") if isinstance(metadata, dict) else None
    return isinstance(properties, list) and any(
        isinstance(one, dict) and one.get("name") == _OURS for one in properties
    )


def keep(found: Attached) -> bool:
    """Store an SBOM that was read; return whether it is new. False too for a platform that is not known."""
    image = Image.objects.filter(digest=found.digest, kind=Image.Kind.MANIFEST).first()
    if image is None or found.document is None or not _has_room(image, found):
        return False
    origin = brought.Origin(PackageList.Kind.REGISTRY, repository=found.repository, object_digest=found.object_digest)
    return brought.keep(image.pk, found.document, found.content, zlib.compress(found.content, 1), origin)[1]


def _has_room(image: Image, found: Attached) -> bool:
    """Return whether the SBOM is signed, or is one of few that are not: anybody who can push can attach those."""
    signed = Signature.objects.filter(
        image=image, object_digest=found.object_digest, state=Signature.State.VERIFIED
    ).exists()
    rows = PackageList.objects.filter(image=image, kind=PackageList.Kind.REGISTRY)
    return signed or rows.count() < UNSIGNED_MAX
