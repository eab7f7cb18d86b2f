"""Copy a complete image between two repositories, of one registry or of two, by digest, and verify the copy.

Every step first checks whether it is already done, so a copy can be killed at any point and started again. The same
bytes have the same digest, so signatures stay valid. Tags are set last, so they never point at an incomplete copy.

Manifests are copied as bytes. Only the digests that they name are read, so an odd manifest is copied like any other. A
copy that would leave something out fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from lifecycle.core.errors import LimitExceeded, Malformed, RegistryRefused, RegistryUnavailable
from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.core.types import Digest
from lifecycle.oci.client import (
    AccessDenied,
    BlobUnknown,
    CredentialsRefused,
    ManifestUnknown,
    QuotaExceeded,
    RegistryClient,
)
from lifecycle.oci.constants import GRAPH_DEPTH_MAX, GRAPH_NODES_MAX, MANIFEST_MAX_BYTES, MediaType
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.manifests import parse_links
from lifecycle.oci.types import Descriptor, Links, ManifestContent

_MERGE_TRIES: Final = 5
_NOT_ABOUT_CONTENT: Final = (CredentialsRefused, AccessDenied, QuotaExceeded)  # problems of the registry as a whole
_SIGNATURE_SUFFIXES: Final = (".sig", ".att", ".sbom")  # cosign's legacy tags


class CopyNotVerified(RegistryUnavailable):
    """The target does not contain what was written to it. A retry can help."""

    code: ClassVar[str] = "copy_not_verified"


class ReferrerNotCopied(RegistryRefused):
    """A referrer of the image cannot be copied, so the copy would be incomplete. A retry does not help."""

    code: ClassVar[str] = "referrer_not_copied"


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of one copy. If the target was already complete, `mounted` and `uploaded` are 0."""

    manifests: int  # verified in the target
    blobs: int
    mounted: int
    uploaded: int
    referrers: int
    tags: tuple[str, ...]
    deleted: tuple[str, ...]  # digests of listed referrers that the source no longer has


@dataclass(slots=True)
class _Counts:
    mounted: int = 0
    uploaded: int = 0
    referrers: int = 0
    deleted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Route:
    """From where to where. Both clients are the same object when the repositories are in one registry."""

    source: RegistryClient
    source_name: str
    target: RegistryClient
    target_name: str


@dataclass(frozen=True, slots=True)
class _Item:
    content: ManifestContent
    links: Links


def copy_by_digest(
    client: RegistryClient,
    *,
    source_repository: str,
    target_repository: str,
    digest: Digest | str,
    tags: Sequence[str],
    target_client: RegistryClient | None = None,
    alive: Callable[[], None] = lambda: None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> Copied:
    """Copy `digest` with its children, blobs and referrers, verify the target, then point `tags` at it.

    `target_client` is for a target in another registry: blobs are then uploaded, because none can be mounted. `alive`
    is called between the steps and can raise, to stop a worker that lost its job. `progress` gets (done, total,
    sentence). Raises ManifestUnknown when the source does not have it, CopyNotVerified, LimitExceeded,
    MalformedManifest, ReferrerNotCopied, RegistryUnavailable, RegistryRefused.
    """
    top = digest if isinstance(digest, Digest) else Digest.parse(digest)
    target = target_client or client
    route = _Route(client, source_repository, target, target_repository)
    counts = _Counts()
    copied: dict[str, _Item] = {}

    def copy_graph(root: Digest) -> None:
        items = _walk(client, source_repository, root, skip=copied)
        for number, item in enumerate(items):
            progress(number, len(items), f"Copying {item.content.digest.text[:19]}")
            for blob in item.links.blobs:
                alive()
                _copy_blob(route, blob.digest, counts=counts)
            alive()
            _put_if_absent(target, target_repository, item.content)
            copied[item.content.digest.text] = item

    copy_graph(top)
    # Copy the referrers of every manifest too. Referrers can have referrers, so repeat until no new one is found.
    pending, seen = list(copied.values()), set(copied)
    while pending:
        new_items: list[_Item] = []
        for item in pending:
            alive()
            for digest_text in _copy_referrers(route, item.content.digest, copy_graph=copy_graph, counts=counts):
                if digest_text not in seen:
                    seen.add(digest_text)
                    new_items.append(copied[digest_text])
        pending = new_items
    blobs = _verify(route, items=copied.values(), alive=alive, progress=progress)
    for tag in tags:
        alive()
        _put_tag(target, target_repository, tag, copied[top.text].content)
    progress(1, 1, "Copied and verified")
    return Copied(
        len(copied),
        blobs,
        counts.mounted,
        counts.uploaded,
        counts.referrers,
        tuple(tags),
        tuple(counts.deleted),
    )


def point_tag(client: RegistryClient, repository: str, tag: str, digest: Digest) -> None:
    """Point a tag to a manifest that its repository has, and read it back.

    Raises ManifestUnknown, CopyNotVerified, RegistryUnavailable, RegistryRefused.
    """
    _put_tag(client, repository, tag, client.get_manifest(repository, digest.text))


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
        links = parse_links(content)
        for child in links.manifests:
            visit(child.digest, depth + 1)
        done[digest.text] = _Item(content, links)

    visit(root, 0)
    return list(done.values())


def _copy_blob(route: _Route, digest: Digest, *, counts: _Counts) -> None:
    source, target = route.source, route.target
    if target.blob_size(route.target_name, digest) is not None:
        return
    if source is target and target.mount_blob(route.target_name, digest, source_repository=route.source_name):
        counts.mounted += 1
        return
    with scratch_folder("copy") as folder:
        path = folder / "blob"
        with path.open("w+b") as stream:
            # By its real size: a wrong size in a manifest is no reason not to copy the manifest.
            size_bytes = source.blob_size(route.source_name, digest) or None
            source.fetch_blob(route.source_name, digest, stream, size_bytes=size_bytes)
        target.upload_blob(route.target_name, digest, path)
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
    route: _Route, subject: Digest, *, copy_graph: Callable[[Digest], None], counts: _Counts
) -> list[str]:
    """Copy the artifacts that declare `subject` as their subject, and its signature tags; return their digests."""
    artifacts: list[str] = []
    confirmed: list[Descriptor] = []
    for entry in route.source.referrers(route.source_name, subject):
        try:
            added = _copy_referrer(route, subject, entry, copy_graph=copy_graph, counts=counts)
        except _NOT_ABOUT_CONTENT:
            raise
        except (Malformed, RegistryRefused) as error:
            raise ReferrerNotCopied(
                f"{entry.digest}, which refers to {subject}, cannot be copied. {error.message}", cause=error.error_code
            ) from error
        if added is not None:
            confirmed.append(added)
            if added.is_manifest:
                artifacts.append(entry.digest.text)
    if confirmed:
        # A registry with the referrers API lists them by itself; the others need the list at the fallback tag.
        listed = {entry.digest for entry in route.target.referrers(route.target_name, subject)}
        if missing := [entry for entry in confirmed if entry.digest not in listed]:
            merge_fallback(route.target, route.target_name, subject, missing)
        counts.referrers += len(confirmed)
    for suffix in _SIGNATURE_SUFFIXES:
        tag = fallback_tag(subject) + suffix
        signature = route.source.resolve(route.source_name, tag)
        if signature is None:
            continue
        try:
            copy_graph(signature.digest)
            content = route.source.get_manifest(route.source_name, signature.digest.text)
            _put_tag(route.target, route.target_name, tag, content)
        except _NOT_ABOUT_CONTENT:
            raise
        except (Malformed, RegistryRefused) as error:
            raise ReferrerNotCopied(
                f"The tag {tag} cannot be copied. {error.message}", cause=error.error_code
            ) from error
        counts.referrers += 1
        artifacts.append(signature.digest.text)
    return artifacts


def _copy_referrer(
    route: _Route, subject: Digest, entry: Descriptor, *, copy_graph: Callable[[Digest], None], counts: _Counts
) -> Descriptor | None:
    """Copy one listed referrer and return its entry for the target's list, or None when it is not one.

    Only the subject in the artifact itself counts. A list can name deleted content: there is nothing to copy.
    """
    if not entry.is_manifest:
        try:
            _copy_blob(route, entry.digest, counts=counts)
        except BlobUnknown:
            counts.deleted.append(entry.digest.text)
            return None
        return entry
    try:
        content = route.source.get_manifest(route.source_name, entry.digest.text)
    except ManifestUnknown:
        counts.deleted.append(entry.digest.text)
        return None
    links = parse_links(content)
    if links.subject != subject:
        return None
    copy_graph(entry.digest)
    return Descriptor(
        content.media_type, content.digest, len(content.content), links.annotations, None, links.artifact_type
    )


def merge_fallback(client: RegistryClient, repository: str, subject: Digest, added: Iterable[Descriptor]) -> None:
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
        index = _index_bytes(entries + [_as_json(entry) for entry in missing])
        if len(index) > MANIFEST_MAX_BYTES:  # the annotations are copies: the artifacts themselves keep them
            index = _index_bytes([_without_annotations(entry) for entry in [*entries, *map(_as_json, missing)]])
        client.put_manifest(repository, tag, index, MediaType.OCI_INDEX)
    raise CopyNotVerified("Another client kept changing the list of referrers.", repository=repository, tag=tag)


def _index_bytes(entries: list[dict[str, object]]) -> bytes:
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX.value, "manifests": entries}
    return json.dumps(index, separators=(",", ":")).encode()


def _without_annotations(entry: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in entry.items() if key != "annotations"}


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
    route: _Route,
    *,
    items: Iterable[_Item],
    alive: Callable[[], None],
    progress: Callable[[int, int, str], None],
) -> int:
    """Read back all manifests, check the sizes of all blobs, and return the number of blobs; raises CopyNotVerified."""
    client, repository = route.target, route.target_name
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
        blobs.update({blob.digest.text: blob for blob in item.links.blobs})
    for blob in blobs.values():
        alive()
        size_bytes = client.blob_size(repository, blob.digest)
        # The size in a manifest can be wrong. The source then has the same blob, with the same other size.
        is_same = size_bytes == blob.size_bytes or size_bytes == route.source.blob_size(route.source_name, blob.digest)
        if size_bytes is None or not is_same:
            raise CopyNotVerified("A blob is missing in the target, or has a different size.", digest=blob.digest.text)
    return len(blobs)
