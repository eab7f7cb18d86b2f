"""Store a graph of manifests as rows, in one transaction. Storing it again gives the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction

from accounts.models import User
from accounts.queries import system_user
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import TagDetails
from lifecycle.audit.details_of_images import ImagePushAttributed, ImagePushed, TagMoveRefused
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import MalformedDigest
from lifecycle.core.types import Digest
from lifecycle.ingest import protection
from lifecycle.ingest.settling import queue_settling
from lifecycle.ingest.types import Graph, ManifestNode, Written
from lifecycle.oci.chains import as_stored, chain_ids
from lifecycle.oci.constants import OCI_PREFIX, TEXT_MAX
from lifecycle.oci.manifests import clean, history_of_layers, merged_annotations
from lifecycle.oci.types import IndexDocument, ManifestDocument
from lifecycle.registry import services as registry_services
from lifecycle.registry.models import (
    Image,
    IndexEntry,
    Layer,
    MissingChild,
    Registry,
    Repository,
    RepositoryImage,
    Tag,
    TagEvent,
)

_SEEN_ONLY = frozenset({TagEvent.Via.PUSH, TagEvent.Via.CRAWL})  # moves seen in the registry, not made by our workers
_LAYER_PARTS = (".tar", ".rootfs.diff", ".rootfs.foreign")
_SIZE_MAX = 2**62  # bytes: sums of sizes that a manifest declares must fit in a bigint


@transaction.atomic
def write_graph(
    registry: Registry,
    repository_name: str,
    graph: Graph,
    *,
    tag: str | None,
    actor: User | None,
    via: str,
    is_settled: bool = False,
) -> Written:
    """Store `graph` as present in the repository, with `tag` (if given) on its top, and return the result.

    Images are immutable, so existing rows stay as they are. Only new content is audited and published as events.
    A protected tag keeps its image when the user is not allowed to move it (`protection.py`). `is_settled` means that
    no later notification will name that user. Raises NoOwner.
    """
    repository = registry_services.ensure_repository(registry, repository_name)
    # One writer for each repository at a time: memberships and tags are read, compared and written.
    Repository.objects.select_for_update(no_key=True, of=("self",)).get(pk=repository.pk)
    images, fresh, redeclared = _write_images(repository, graph)
    top = images[graph.top.text]
    is_new_here = _write_memberships(repository, graph, images, actor=actor, has_tag=tag is not None)
    moved, kept = None, None
    if tag is not None:
        row = _locked_tag(repository, tag)
        verdict = protection.judge(row, top, actor=actor, via=via, is_settled=is_settled)
        if verdict == protection.MoveVerdict.ALLOWED:
            moved = _point_tag(row, top, actor=actor, via=via)
            if moved is None and actor is not None:
                _record_mover(row, top, actor=actor, via=via)
        elif verdict == protection.MoveVerdict.REFUSED:
            kept = row.image
            _record_refusal(row, top, actor=actor, via=via)
        else:
            queue_settling(repository, tag=row.name, image=top)
    if is_new_here or moved is not None:
        if top.kind != Image.Kind.ARTIFACT:
            Repository.objects.filter(pk=repository.pk).update(updated_at=clock.now())
        old = moved.old_image.digest if moved is not None and moved.old_image is not None else ""
        audit.record(
            Action.IMAGE_PUSHED,
            actor=actor,
            subject=top,
            repository=repository,
            image=top,
            details=ImagePushed(tag=tag or "", via=str(via), kind=top.kind, replaced=old),
        )
    _publish_images(images.values(), fresh, redeclared)
    known = {row.pk for row in images.values()} - {row.pk for row in fresh}
    if is_new_here and known:
        events.publish(events.PlacesChanged(tuple(sorted(known))))
    if is_new_here and top.subject_digest:
        events.publish(events.ReferrerStored(top.subject_digest))
    if moved is not None:
        _publish_move(moved, top)
    return Written(top, kept)


def _publish_images(images: Iterable[Image], fresh: Iterable[Image], redeclared: Iterable[Image]) -> None:
    for image in fresh:
        if image.kind == Image.Kind.MANIFEST:
            events.publish(events.ImageIngested(image.pk))
        elif image.kind == Image.Kind.INDEX:
            events.publish(events.BaseDeclared(image.pk))
        elif image.is_content:
            events.publish(events.ArtifactIngested(image.pk))
    for image in redeclared:
        events.publish(events.BaseDeclared(image.pk))
    for image in images:
        if image.scanned_at is None and image.scan_problem:
            events.publish(events.UnscannedImagePushed(image.pk))


def _publish_move(event: TagEvent, image: Image) -> None:
    events.publish(events.TagMoved(event.tag.repository_id, event.tag.name, image.pk))


def accept_move(repository: Repository, tag: str, image: Image, *, actor: User | None, via: str, why: str) -> None:
    """Record a refused move that could not be reverted. Our rows follow the registry."""
    with transaction.atomic():
        row = _locked_tag(repository, tag)
        moved = _point_tag(row, image, actor=actor, via=via)
        audit.record(
            Action.TAG_NOT_MOVED_BACK,
            actor=system_user(),
            outcome=AuditEvent.Outcome.FAILED,
            subject=row,
            repository=repository,
            image=image,
            reason=why,
            details=TagDetails(tag=tag),
        )
        if moved is not None:
            _publish_move(moved, image)


def forget_tag(repository: Repository, tag: str, *, expected_image_id: int | None, actor: User | None) -> bool:
    """Record that a tag was deleted, if it still points at `expected_image_id`; return whether it did."""
    with transaction.atomic():
        row = Tag.objects.select_for_update().filter(repository=repository, name=tag).first()
        if row is None or row.image is None or row.image_id != expected_image_id:
            return False
        old = row.image
        _point_tag(row, None, actor=actor, via=TagEvent.Via.PUSH if actor else TagEvent.Via.CRAWL)
        details = TagDetails(tag=tag)
        audit.record(Action.TAG_DELETED, actor=actor, subject=row, repository=repository, image=old, details=details)
        return True


def forget_manifest(repository: Repository, digest: str, *, actor: User | None) -> bool:
    """Record that a manifest and all its tags were deleted from a repository; return whether it was present."""
    with transaction.atomic():
        Repository.objects.select_for_update(no_key=True, of=("self",)).get(pk=repository.pk)
        member = (
            RepositoryImage.objects.select_related("image")
            .filter(repository=repository, image__digest=digest, removed_at=None)
            .first()
        )
        if member is None:
            return False
        for row in Tag.objects.select_for_update().filter(repository=repository, image=member.image):
            _point_tag(row, None, actor=actor, via=TagEvent.Via.PUSH if actor else TagEvent.Via.CRAWL)
        member.removed_at = clock.now()
        member.save(update_fields=["removed_at"])
        image = member.image
        audit.record(Action.IMAGE_DELETED, actor=actor, subject=image, repository=repository, image=image)
        events.publish(events.PlacesChanged((image.pk,)))
        return True


def _write_images(repository: Repository, graph: Graph) -> tuple[dict[str, Image], list[Image], list[Image]]:
    """Return (images by digest, images with new content, known images with a base newly declared by an index)."""
    digests = [node.digest.text for node in graph.nodes]
    # Only for indexes of this repository. That another repository has the child proves nothing about this one.
    awaited = list(
        MissingChild.objects.select_related("index").filter(
            digest__in=digests, index__repository_images__repository=repository
        )
    )
    index_annotations = _annotations_from_indexes(graph, awaited)
    before = {row.digest: row for row in Image.objects.filter(digest__in=digests)}
    unknown = [node for node in graph.nodes if node.digest.text not in before]
    rows = [_image_of(node, index_annotations.get(node.digest.text, {}), graph) for node in unknown]
    # Sorted, so that two pushes that share images wait for each other instead of deadlocking.
    Image.objects.bulk_create(sorted(rows, key=lambda row: row.digest), ignore_conflicts=True)
    images = {row.digest: row for row in Image.objects.filter(digest__in=digests)}
    fresh = [images[node.digest.text] for node in unknown]
    for node in graph.nodes:  # complete images that came from an inventory import or had no configuration
        row = before.get(node.digest.text)
        if row is not None and (not row.manifest or (not row.config and node.raw_config is not None)):
            filled = _image_of(node, index_annotations.get(node.digest.text, {}), graph)
            filled.pk, filled.first_seen_at = row.pk, row.first_seen_at
            filled.save(update_fields=_CONTENT_FIELDS)
            images[node.digest.text] = Image.objects.get(pk=row.pk)
            fresh.append(images[node.digest.text])
    fresh_ids = {image.pk for image in fresh}
    layers: list[Layer] = []
    for node in graph.nodes:
        image = images[node.digest.text]
        if image.pk in fresh_ids and image.kind == Image.Kind.MANIFEST:
            layers.extend(_layers_of(node, image))
    Layer.objects.bulk_create(layers, ignore_conflicts=True)
    entries = [entry for node in graph.nodes for entry in _entries_of(node, images)]
    entries += [_entry(row.index, images[row.digest], row) for row in awaited]
    IndexEntry.objects.bulk_create(entries, ignore_conflicts=True)
    MissingChild.objects.filter(pk__in=[row.pk for row in awaited]).delete()
    missing = [row for node in graph.nodes for row in _missing_of(node, images)]
    MissingChild.objects.bulk_create(missing, ignore_conflicts=True)
    return images, fresh, _update_bases(graph, index_annotations, images, fresh_ids)


def _update_bases(
    graph: Graph, index_annotations: Mapping[str, Mapping[str, str]], images: Mapping[str, Image], fresh_ids: set[int]
) -> list[Image]:
    """Set the base that an index declares on images that were known before; return the changed images.

    This is needed because every client pushes the children first. A child's own annotation is kept, and so is the base
    that another index declared before. Only an absent base, or one from a label, is replaced.
    """
    changed = []
    for node in graph.nodes:
        row, from_indexes = images[node.digest.text], index_annotations.get(node.digest.text)
        if row.pk in fresh_ids or row.kind != Image.Kind.MANIFEST or not from_indexes:
            continue
        own_base = _base_of(merged_annotations(node.document.annotations, {}, row.labels))
        declared_base = _base_of(merged_annotations(node.document.annotations, from_indexes, row.labels))
        if declared_base != own_base == (row.base_name, row.base_digest):
            row.base_name, row.base_digest = declared_base
            row.save(update_fields=["base_name", "base_digest"])
            changed.append(row)
    return changed


def _base_of(annotations: Mapping[str, str]) -> tuple[str, str]:
    name, digest = annotations.get(OCI_PREFIX + "base.name", ""), annotations.get(OCI_PREFIX + "base.digest", "")
    return name[:500], _digest_or_empty(digest)


_CONTENT_FIELDS = (
    "kind",
    "media_type",
    "artifact_type",
    "subject_digest",
    "manifest",
    "config_digest",
    "config",
    "os",
    "architecture",
    "variant",
    "size_bytes",
    "annotations",
    "labels",
    "base_name",
    "base_digest",
    "diff_chain_id",
    "digest_chain_id",
    "layer_count",
    "created_at",
)


def _image_of(node: ManifestNode, index_annotations: Mapping[str, str], graph: Graph) -> Image:
    document, config = node.document, node.config
    image = Image(
        digest=node.digest.text,
        kind=_kind_of(node),
        media_type=node.content.media_type,
        artifact_type=document.artifact_type[:255],
        subject_digest=document.subject.digest.text if document.subject else "",
        manifest=node.content.content,
        annotations=_shortened(document.annotations),
    )
    labels: Mapping[str, str] = config.labels if config is not None else {}
    annotations = merged_annotations(document.annotations, index_annotations, labels)
    image.labels = _shortened(labels)
    image.base_name, image.base_digest = _base_of(annotations)
    if isinstance(document, IndexDocument):
        sizes = {child.digest.text: _size_of(child) for child in graph.nodes}
        total = sum(sizes.get(child.digest.text, child.size_bytes) for child in document.manifests)
        image.size_bytes = min(total, _SIZE_MAX)
        return image
    image.config_digest = document.config.digest.text
    image.size_bytes = _size_of(node)
    image.layer_count = len(document.layers)
    if config is not None:
        image.config = _storable(dict(node.raw_config or {}))
        image.os = config.platform.os[:40]
        image.architecture = config.platform.architecture[:40]
        image.variant = config.platform.variant[:40]
        image.created_at = config.created_at
    if image.kind == Image.Kind.MANIFEST:
        diff_chain, digest_chain = _chains(node)
        image.diff_chain_id = diff_chain[-1] if diff_chain else ""
        image.digest_chain_id = digest_chain[-1] if digest_chain else ""
    return image


def _kind_of(node: ManifestNode) -> str:
    document = node.document
    if isinstance(document, IndexDocument):
        # BuildKit's cache export is an index over layers: no platform can run it.
        has_blobs_only = bool(document.manifests) and not any(child.is_manifest for child in document.manifests)
        return Image.Kind.ARTIFACT if document.artifact_type or has_blobs_only else Image.Kind.INDEX
    # BuildKit attestations and legacy cosign signatures have an image configuration, but their blobs are not layers.
    has_layers_only = all(any(part in layer.media_type for part in _LAYER_PARTS) for layer in document.layers)
    is_os_unknown = node.config is not None and node.config.platform.os == "unknown"
    return Image.Kind.MANIFEST if document.is_image and has_layers_only and not is_os_unknown else Image.Kind.ARTIFACT


def _chains(node: ManifestNode) -> tuple[list[str], list[str]]:
    """Return the chain ids of every prefix of the layers, by diff ids and by digests, "" for unknown ones."""
    if not isinstance(node.document, ManifestDocument):
        return [], []
    digests = [layer.digest.text for layer in node.document.layers]
    by_digest = [as_stored(chain) for chain in chain_ids(digests)]
    diff_ids = [diff_id.text for diff_id in node.config.diff_ids] if node.config is not None else []
    if len(diff_ids) != len(digests):
        return [""] * len(digests), by_digest
    return [as_stored(chain) for chain in chain_ids(diff_ids)], by_digest


def _layers_of(node: ManifestNode, image: Image) -> list[Layer]:
    if not isinstance(node.document, ManifestDocument):
        return []
    layers = node.document.layers
    diff_ids: Sequence[Digest] = node.config.diff_ids if node.config is not None else ()
    if len(diff_ids) != len(layers):
        diff_ids = ()
    history = history_of_layers(node.config, len(layers)) if node.config is not None else (None,) * len(layers)
    diff_chain, digest_chain = _chains(node)
    return [
        Layer(
            image=image,
            position=position,
            digest=layer.digest.text,
            diff_id=diff_ids[position].text if diff_ids else "",
            media_type=layer.media_type[:150],
            size_bytes=layer.size_bytes,
            created_by=entry.created_by if entry is not None else "",
            diff_chain_id=diff_chain[position],
            digest_chain_id=digest_chain[position],
        )
        for position, (layer, entry) in enumerate(zip(layers, history, strict=True))
    ]


def _entries_of(node: ManifestNode, images: Mapping[str, Image]) -> list[IndexEntry]:
    named = _named_by(node, images)
    return [_entry(row.index, images[row.digest], row) for row in named if row.digest in images]


def _missing_of(node: ManifestNode, images: Mapping[str, Image]) -> list[MissingChild]:
    return [row for row in _named_by(node, images) if row.digest not in images]


def _named_by(node: ManifestNode, images: Mapping[str, Image]) -> list[MissingChild]:
    """Return all children of an index as unsaved MissingChild rows; an empty list for a manifest."""
    if not isinstance(node.document, IndexDocument):
        return []
    return [
        MissingChild(
            index=images[node.digest.text],
            digest=child.digest.text,
            position=position,
            platform=str(child.platform)[:120] if child.platform else "",
            annotations=_shortened(child.annotations),
        )
        for position, child in enumerate(node.document.manifests)
        if child.is_manifest
    ]


def _entry(index: Image, child: Image, row: MissingChild) -> IndexEntry:
    return IndexEntry(
        index=index, child=child, position=row.position, platform=row.platform, annotations=row.annotations
    )


def _annotations_from_indexes(graph: Graph, awaited: Sequence[MissingChild]) -> dict[str, dict[str, str]]:
    """Return {child digest: annotations} from indexes and their entries."""
    by_child: dict[str, dict[str, str]] = {}
    for row in awaited:
        by_child.setdefault(row.digest, {}).update({**row.index.annotations, **row.annotations})
    for node in graph.nodes:
        if isinstance(node.document, IndexDocument):
            for child in node.document.manifests:
                by_child.setdefault(child.digest.text, {}).update({**node.document.annotations, **child.annotations})
    return by_child


def _write_memberships(
    repository: Repository, graph: Graph, images: Mapping[str, Image], *, actor: User | None, has_tag: bool
) -> bool:
    """Add every image of the graph to the repository; return whether the top was not in it before."""
    top, ids = images[graph.top.text], [image.pk for image in images.values()]
    present = {row.image_id: row for row in RepositoryImage.objects.filter(repository=repository, image_id__in=ids)}
    was_here = top.pk in present and present[top.pk].removed_at is None
    # Every client pushes children before their index. They become children here when the index arrives.
    children = set(
        IndexEntry.objects.filter(child_id__in=ids, index__repository_images__repository=repository).values_list(
            "child_id", flat=True
        )
    ) | {pk for pk in ids if pk != top.pk}
    tagged = set(Tag.objects.filter(repository=repository, image_id__in=ids).values_list("image_id", flat=True))
    if has_tag:
        tagged.add(top.pk)
    created = [
        RepositoryImage(
            repository=repository, image_id=pk, is_top_level=pk in tagged or pk not in children, pushed_by=actor
        )
        for pk in sorted(set(ids) - set(present))
    ]
    RepositoryImage.objects.bulk_create(created)
    for pk, row in present.items():
        is_top_level = pk in tagged or pk not in children
        if row.removed_at is not None or row.is_top_level != is_top_level:
            RepositoryImage.objects.filter(pk=row.pk).update(removed_at=None, is_top_level=is_top_level)
    return not was_here


def _locked_tag(repository: Repository, name: str) -> Tag:
    row = Tag.objects.select_for_update().filter(repository=repository, name=name).first()
    if row is None:
        row = Tag.objects.create(repository=repository, name=name, image=None, updated_at=clock.now())
    row.repository = repository
    return row


def _record_refusal(row: Tag, image: Image, *, actor: User | None, via: str) -> None:
    """Record that a protected tag was moved to `image` and is moved back, once until the tag has another event."""
    last = list(TagEvent.objects.filter(tag=row).order_by("-pk")[:2])
    if [event.new_image_id for event in last] == [row.image_id, image.pk] and last[0].via == TagEvent.Via.PROTECTION:
        return
    TagEvent.objects.create(tag=row, old_image=row.image, new_image=image, via=via, actor=actor)
    back = TagEvent.Via.PROTECTION
    TagEvent.objects.create(tag=row, old_image=image, new_image=row.image, via=back, actor=system_user())
    audit.record(
        Action.TAG_MOVE_REFUSED,
        actor=actor,
        outcome=AuditEvent.Outcome.DENIED,
        subject=row,
        repository=row.repository,
        image=image,
        reason=_why_refused(row.repository, actor),
        details=TagMoveRefused(tag=row.name, kept=row.image.digest if row.image is not None else ""),
    )


def _why_refused(repository: Repository, actor: User | None) -> str:
    if repository.environment_id is not None:
        return "Only promotions can change this repository. No promotion made this change."
    if actor is not None:
        return "The tag is protected, and the user who moved it does not have image.amend on this repository."
    return "The tag is protected, and the user who moved it is unknown."


def _record_mover(row: Tag, image: Image, *, actor: User, via: str) -> None:
    """Record the user of a move that a crawl saw before the notification arrived. A crawl sees no user names.

    After a push by our own worker, the registry's notification can arrive before the worker's report. Only that report
    has the user that the worker acted for, and the reason.
    """
    event = TagEvent.objects.select_related("actor").filter(tag=row).order_by("-pk").first()
    if event is None or event.new_image_id != image.pk or event.via not in _SEEN_ONLY:
        return
    if event.actor is not None and (event.actor.kind != User.Kind.SYSTEM or via in _SEEN_ONLY):
        return
    event.actor, event.via = actor, via
    event.save(update_fields=["actor", "via"])
    members = RepositoryImage.objects.filter(repository=row.repository, image=image, pushed_by=None)
    members.update(pushed_by=actor)
    audit.record(
        Action.IMAGE_PUSH_ATTRIBUTED,
        actor=actor,
        subject=image,
        repository=row.repository,
        image=image,
        details=ImagePushAttributed(tag=row.name, via=str(via)),
    )


def _point_tag(row: Tag, image: Image | None, *, actor: User | None, via: str) -> TagEvent | None:
    """Point a locked tag at `image` and return the recorded move, or None when it already pointed there.

    Only this function moves tags.
    """
    if row.image_id == (image.pk if image is not None else None):
        return None
    event = TagEvent.objects.create(tag=row, old_image=row.image, new_image=image, via=via, actor=actor)
    row.image, row.updated_at = image, clock.now()
    row.save(update_fields=["image", "updated_at"])
    return event


def _size_of(node: ManifestNode) -> int:
    document = node.document
    if isinstance(document, IndexDocument):
        return min(sum(child.size_bytes for child in document.manifests), _SIZE_MAX)
    return min(document.config.size_bytes + sum(layer.size_bytes for layer in document.layers), _SIZE_MAX)


def _shortened(texts: Mapping[str, str]) -> dict[str, str]:
    """Return annotations or labels for a row. A longer text is shortened: the manifest itself is stored whole."""
    return {
        key[:TEXT_MAX]: text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}... ({len(text)} characters)"
        for key, text in texts.items()
    }


def _digest_or_empty(text: str) -> str:
    try:
        return Digest.parse(text).text
    except MalformedDigest:
        return ""


def _storable(value: Any) -> Any:
    """Return the JSON value without NUL, which jsonb rejects."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value
