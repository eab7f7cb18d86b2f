"""Copy a complete image between two repositories of one registry, by digest, and verify the copy.

Every step first checks whether it is already done, so a copy can be killed at any point and started again. The same
bytes have the same digest, so signatures stay valid. Tags are set last, so they never point at an incomplete copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Final

from lifecycle.core.errors import LimitExceeded, Malformed, RegistryRefused, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.oci.constants import GRAPH_DEPTH_MAX, GRAPH_NODES_MAX, MediaType
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.manifests import parse
from lifecycle.oci.types import Descriptor, IndexDocument, ManifestContent, ManifestDocument

_MERGE_TRIES: Final = 5
_SIGNATURE_SUFFIXES: Final = (".sig", ".att", ".sbom")  # cosign's legacy tags


class CopyNotVerified(RegistryUnavailable):
    """The target does not contain what was written to it. A retry can help."""

    code: ClassVar[str] = "copy_not_verified"


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of one copy. If the target was already complete, `mounted` and `uploaded` are 0."""

    manifests: int  # verified in the target
    blobs: int
    mounted: int
    uploaded: int
    referrers: int
    tags: tuple[str, ...]


@dataclass(slots=True)
class _Counts:
    mounted: int = 0
    uploaded: int = 0
    referrers: int = 0


@dataclass(frozen=True, slots=True)
class _Item:
    content: ManifestContent
    document: ManifestDocument | IndexDocument


def copy_by_digest(
    client: RegistryClient,
    *,
    source_repository: str,
    target_repository: str,
    digest: Digest | str,
    tags: Sequence[str],
    alive: Callable[[], None] = lambda: None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> Copied:
    """Copy `digest` with its children, blobs and referrers, verify the target, then point `tags` at it.

    `alive` is called between the steps and can raise, to stop a worker that lost its job. `progress` gets
    (done, total, sentence). Raises ManifestUnknown when the source does not have it, CopyNotVerified, LimitExceeded,
    MalformedManifest, RegistryUnavailable, RegistryRefused.
    """
    top = digest if isinstance(digest, Digest) else Digest.parse(digest)
    counts = _Counts()
    copied: dict[str, _Item] = {}

    def copy_graph(root: Digest) -> None:
        items = _walk(client, source_repository, root, skip=copied)
        for number, item in enumerate(items):
            progress(number, len(items), f"Copying {item.content.digest.text[:19]}")
            _copy_blobs(client, source_repository, target_repository, item.document, counts=counts, alive=alive)
            alive()
            _put_if_absent(client, target_repository, item.content)
            copied[item.content.digest.text] = item

    copy_graph(top)
    # Copy the referrers of every manifest too. Referrers can have referrers, so repeat until no new one is found.
    pending, seen = list(copied.values()), set(copied)
    depth = 0
    while pending and depth < GRAPH_DEPTH_MAX:
        new_items: list[_Item] = []
        for item in pending:
            alive()
            for digest_text in _copy_referrers(
                client, source_repository, target_repository, item.content.digest, copy_graph=copy_graph, counts=counts
            ):
                if digest_text not in seen:
                    seen.add(digest_text)
                    new_items.append(copied[digest_text])
        pending, depth = new_items, depth + 1
    blobs = _verify(client, target_repository, copied.values(), alive, progress)
    for tag in tags:
        alive()
        _put_tag(client, target_repository, tag, copied[top.text].content)
    progress(1, 1, "Copied and verified")
    return Copied(len(copied), blobs, counts.mounted, counts.uploaded, counts.referrers, tuple(tags))


def _walk(client: RegistryClient, repository: str, root: Digest, *, skip: dict[str, _Item]) -> list[_Item]:
    """Return `root` and all manifests below it, children before parents, each once; without those in `skip`."""
    done: dict[str, _Item] = {}

    def visit(digest: Digest, depth: int) -> None:
        if digest.text in done or digest.text in skip:
            return
        if depth > GRAPH_DEPTH_MAX or len(done) + len(skip) >= GRAPH_NODES_MAX:
            raise LimitExceeded(
                f"The image is nested deeper than {GRAPH_DEPTH_MAX}, or has more than {GRAPH_NODES_MAX} manifests."
            )
        content = client.get_manifest(repository, digest.text)
        document = parse(content)
        for child in document.manifests if isinstance(document, IndexDocument) else ():
            visit(child.digest, depth + 1)
        done[digest.text] = _Item(content, document)

    visit(root, 0)
    return list(done.values())


def _copy_blobs(
    client: RegistryClient,
    source: str,
    target: str,
    document: ManifestDocument | IndexDocument,
    *,
    counts: _Counts,
    alive: Callable[[], None],
) -> None:
    for blob in document.blobs if isinstance(document, ManifestDocument) else ():
        alive()
        if client.blob_size(target, blob.digest) is not None:
            continue
        if client.mount_blob(target, blob.digest, source_repository=source):
            counts.mounted += 1
            continue
        with TemporaryDirectory(prefix="gravingdock-copy-") as folder:
            path = Path(folder) / "blob"
            with path.open("w+b") as stream:
                client.fetch_blob(source, blob.digest, stream, size_bytes=blob.size_bytes)
            client.upload_blob(target, blob.digest, path)
        counts.uploaded += 1


def _put_if_absent(client: RegistryClient, repository: str, content: ManifestContent) -> None:
    if client.resolve(repository, content.digest.text) is None:
        client.put_manifest(repository, content.digest.text, content.content, content.media_type)


def _put_tag(client: RegistryClient, repository: str, tag: str, content: ManifestContent) -> None:
    present = client.resolve(repository, tag)
    if present is None or present.digest != content.digest:
        client.put_manifest(repository, tag, content.content, content.media_type)
        present = client.resolve(repository, tag)
    if present is None or present.digest != content.digest:
        raise CopyNotVerified(f"The tag {tag} does not point at the copied image.", tag=tag)


def _copy_referrers(
    client: RegistryClient,
    source: str,
    target: str,
    subject: Digest,
    *,
    copy_graph: Callable[[Digest], None],
    counts: _Counts,
) -> list[str]:
    """Copy the artifacts that declare `subject` as their subject, and its signature tags; return their digests."""
    artifacts: list[str] = []
    confirmed: list[Descriptor] = []
    for entry in client.referrers(source, subject):
        try:
            content = client.get_manifest(source, entry.digest.text)
            document = parse(content)
        except (ManifestUnknown, Malformed):
            continue  # a list can name deleted content, or content that is not a manifest; skipping it loses nothing
        if document.subject is None or document.subject.digest != subject:
            continue  # only the subject in the artifact itself counts
        copy_graph(entry.digest)
        confirmed.append(_descriptor_of(content, document))
        artifacts.append(entry.digest.text)
    if confirmed:
        _merge_fallback(client, target, subject, confirmed)
        counts.referrers += len(confirmed)
    for suffix in _SIGNATURE_SUFFIXES:
        tag = fallback_tag(subject) + suffix
        signature = client.resolve(source, tag)
        if signature is not None:
            copy_graph(signature.digest)
            content = client.get_manifest(source, signature.digest.text)
            _put_tag(client, target, tag, content)
            counts.referrers += 1
            artifacts.append(signature.digest.text)
    return artifacts


def _merge_fallback(client: RegistryClient, repository: str, subject: Digest, added: Iterable[Descriptor]) -> None:
    """Add `added` to the list at the subject's fallback tag, and keep its other entries.

    The list is read, written and read again. If another writer changed it meanwhile, the merge starts again.
    """
    tag, wanted = fallback_tag(subject), list(added)
    for _ in range(_MERGE_TRIES):
        try:
            content = client.get_manifest(repository, tag)
        except ManifestUnknown:
            entries: list[dict[str, object]] = []
        else:
            if not content.is_index:
                raise RegistryRefused("The tag for referrers is not an index.", repository=repository, tag=tag)
            entries = json.loads(content.content).get("manifests") or []
        present = {str(entry.get("digest")) for entry in entries}
        missing = [entry for entry in wanted if entry.digest.text not in present]
        if not missing:
            return
        index = {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_INDEX.value,
            "manifests": entries + [_as_json(entry) for entry in missing],
        }
        client.put_manifest(repository, tag, json.dumps(index, separators=(",", ":")).encode(), MediaType.OCI_INDEX)
    raise CopyNotVerified("Another client kept changing the list of referrers.", repository=repository, tag=tag)


def _descriptor_of(content: ManifestContent, document: ManifestDocument | IndexDocument) -> Descriptor:
    artifact_type = document.artifact_type
    if not artifact_type and isinstance(document, ManifestDocument):
        artifact_type = document.config.media_type
    return Descriptor(
        content.media_type, content.digest, len(content.content), document.annotations, None, artifact_type
    )


def _as_json(entry: Descriptor) -> dict[str, object]:
    fields: dict[str, object] = {
        "mediaType": entry.media_type,
        "digest": entry.digest.text,
        "size": entry.size_bytes,
    }
    if entry.artifact_type:
        fields["artifactType"] = entry.artifact_type
    if entry.annotations:
        fields["annotations"] = dict(entry.annotations)
    return fields


def _verify(
    client: RegistryClient,
    repository: str,
    items: Iterable[_Item],
    alive: Callable[[], None],
    progress: Callable[[int, int, str], None],
) -> int:
    """Read back all manifests, check the sizes of all blobs, and return the number of blobs; raises CopyNotVerified."""
    blobs: dict[str, Descriptor] = {}
    listed = list(items)
    for number, item in enumerate(listed):
        alive()
        progress(number, len(listed), "Verifying the target")
        try:
            served = client.get_manifest(repository, item.content.digest.text)
        except ManifestUnknown as error:
            raise CopyNotVerified("A manifest is missing in the target.", digest=item.content.digest.text) from error
        if served.content != item.content.content or served.media_type != item.content.media_type:
            raise CopyNotVerified("A manifest in the target differs.", digest=item.content.digest.text)
        for blob in item.document.blobs if isinstance(item.document, ManifestDocument) else ():
            blobs[blob.digest.text] = blob
    for blob in blobs.values():
        alive()
        if client.blob_size(repository, blob.digest) != blob.size_bytes:
            raise CopyNotVerified("A blob is missing in the target, or has a different size.", digest=blob.digest.text)
    return len(blobs)
