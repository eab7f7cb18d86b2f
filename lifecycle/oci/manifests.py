"""Two parsers for manifests and indexes, and one for image configurations.

`parse` is for documents that we use. It is strict and rejects ambiguous documents (image-spec 1.1). `parse_links` is
for documents that we only copy: it reads the digests that they name, as lenient as registries are. Every error is
MalformedManifest or LimitExceeded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from lifecycle.core.clock import stated
from lifecycle.core.errors import LimitExceeded, MalformedDigest, MalformedManifest
from lifecycle.core.types import Digest
from lifecycle.oci.constants import (
    CHILDREN_MAX,
    CONFIG_MAX_BYTES,
    IMAGE_CONFIG_TYPES,
    INDEX_TYPES,
    JSON_DEPTH_MAX,
    LAYERS_MAX,
    LEGACY_PREFIX,
    MANIFEST_MAX_BYTES,
    MANIFEST_TYPES,
    OCI_PREFIX,
    SCHEMA_1_TYPES,
    TEXT_MAX,
    TEXTS_MAX,
    MediaType,
)
from lifecycle.oci.types import (
    ConfigDocument,
    Descriptor,
    HistoryEntry,
    IndexDocument,
    Links,
    ManifestContent,
    ManifestDocument,
    Platform,
)

_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
_SIZE_MAX: Final = 2**63 - 1
_LEGACY_KEYS: Final = {  # org.label-schema.* to org.opencontainers.image.*
    "vcs-url": "source",
    "vcs-ref": "revision",
    "build-date": "created",
    "name": "title",
    "description": "description",
    "version": "version",
    "vendor": "vendor",
    "url": "url",
}
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL text cannot contain NUL or lone surrogates
_TIMESTAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|z|[+-]\d\d:\d\d)")
# Most clients use Go's decoder, which ignores the case of keys. It would read `Layers` beside `layers` differently from
# us. We therefore reject these keys in any other spelling.
_MANIFEST_KEYS: Final = {
    name.lower(): name
    for name in (
        "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations",
        "digest", "size", "urls", "data", "platform", "fsLayers",
    )
}  # fmt: skip
_CONFIG_KEYS: Final = {name.lower(): name for name in ("rootfs", "diff_ids", "history", "config", "os", "architecture")}


def parse(content: ManifestContent) -> ManifestDocument | IndexDocument:
    """Return the manifest or index in `content`, whose digest the caller has verified."""
    if content.media_type in SCHEMA_1_TYPES:
        raise MalformedManifest(
            "Docker image manifest version 1 is not supported. Push the image again with a current client."
        )
    if len(content.content) > MANIFEST_MAX_BYTES:
        raise LimitExceeded(
            f"The manifest is larger than {MANIFEST_MAX_BYTES} bytes.",
            limit=MANIFEST_MAX_BYTES,
        )
    document = _json_object(content.content, "manifest", _MANIFEST_KEYS)
    if document.get("schemaVersion") != 2 or isinstance(document["schemaVersion"], bool):
        raise MalformedManifest("The manifest's schemaVersion is not 2.")
    declared = document.get("mediaType", "")
    if declared not in ("", None) and declared != content.media_type:
        raise MalformedManifest("The manifest's mediaType is not the Content-Type it was served with (CVE-2021-41190).")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise MalformedManifest("The document is both a manifest and an index (CVE-2021-41190).")
    if "fsLayers" in document:
        raise MalformedManifest("The manifest has fields of both version 1 and version 2.")
    if content.media_type in INDEX_TYPES:
        return _parse_index(content, document)
    if content.media_type in MANIFEST_TYPES:
        return _parse_manifest(content, document)
    raise MalformedManifest("The media type is not that of a manifest or an index.", got=content.media_type[:150])


def parse_manifest(content: ManifestContent) -> ManifestDocument:
    """As `parse`, but raises MalformedManifest for an index."""
    document = parse(content)
    if not isinstance(document, ManifestDocument):
        raise MalformedManifest("The document is an index, but a manifest was expected.")
    return document


def is_list_of_referrers(content: ManifestContent) -> bool:
    """Return whether `content` has the form of a list of referrers: an index whose entries name no platform."""
    if not content.is_index:
        return False
    try:
        value = json.loads(content.content)
    except (ValueError, RecursionError):
        return False
    entries = value.get("manifests") if isinstance(value, dict) else None
    return isinstance(entries, list) and not any(isinstance(item, dict) and item.get("platform") for item in entries)


def parse_links(content: ManifestContent) -> Links:
    """Return the content that a manifest or index names by digest, whatever else it says.

    Registries read manifests with Go's decoder: keys in any case, the last of equal keys, unknown fields ignored.
    Raises MalformedManifest when `content` is not a JSON object or names content without a supported digest.
    """
    try:
        value = json.loads(content.content.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise MalformedManifest("The manifest is not valid JSON.", problem=type(error).__name__) from None
    if not isinstance(value, dict):
        raise MalformedManifest("The manifest is not a JSON object.")
    fields = {key.lower(): item for key, item in value.items()}
    config = _links(fields.get("config"), "config")
    layers = [layer for layer in _links(fields.get("layers"), "layers") if not layer.is_foreign]
    children = _links(fields.get("manifests"), "manifests")
    subjects = _links(fields.get("subject"), "subject")
    return Links(
        manifests=tuple(child for child in children if child.is_manifest),
        blobs=(*config, *layers, *(child for child in children if not child.is_manifest)),
        subject=subjects[0].digest if subjects else None,
        artifact_type=_text_or_empty(fields.get("artifacttype")) or "".join(item.media_type for item in config),
        annotations=_texts_of(fields.get("annotations")),
    )


def parse_config(content: bytes, digest: Digest) -> ConfigDocument:
    """Return the image configuration in `content`, whose digest the caller has verified."""
    if len(content) > CONFIG_MAX_BYTES:
        raise LimitExceeded(
            f"The configuration is larger than {CONFIG_MAX_BYTES} bytes.",
            limit=CONFIG_MAX_BYTES,
        )
    document = _json_object(content, "configuration", _CONFIG_KEYS)
    settings = _object(document.get("config"), "config")
    rootfs = _object(document.get("rootfs"), "rootfs")
    if rootfs and rootfs.get("type") not in ("layers", None):
        raise MalformedManifest("The configuration's rootfs is not of type layers.")
    diff_ids = tuple(_digest(item, "diff_ids") for item in _array(rootfs.get("diff_ids"), "diff_ids", LAYERS_MAX))
    history = tuple(_history_entry(item) for item in _array(document.get("history"), "history", LAYERS_MAX * 4))
    return ConfigDocument(
        digest=digest,
        platform=normalise_platform(
            os=_text(document.get("os"), "os"),
            architecture=_text(document.get("architecture"), "architecture"),
            variant=_text(document.get("variant"), "variant"),
            os_version=_text(document.get("os.version"), "os.version"),
        ),
        created_at=parse_timestamp(document.get("created")),
        author=_text(document.get("author"), "author"),
        user=_text(settings.get("User"), "User"),
        env=_texts(settings.get("Env"), "Env"),
        entrypoint=_texts(settings.get("Entrypoint"), "Entrypoint"),
        cmd=_texts(settings.get("Cmd"), "Cmd"),
        working_dir=_text(settings.get("WorkingDir"), "WorkingDir"),
        stop_signal=_text(settings.get("StopSignal"), "StopSignal"),
        exposed_ports=tuple(sorted(map(clean, _object(settings.get("ExposedPorts"), "ExposedPorts")))),
        volumes=tuple(sorted(map(clean, _object(settings.get("Volumes"), "Volumes")))),
        labels=_string_map(settings.get("Labels"), "Labels"),
        has_healthcheck=bool(settings.get("Healthcheck")),
        diff_ids=diff_ids,
        history=history,
    )


def history_of_layers(config: ConfigDocument, layer_count: int) -> tuple[HistoryEntry | None, ...]:
    """Return the history entry of each layer; all are None when the history does not match the layers."""
    entries = [entry for entry in config.history if not entry.is_empty_layer]
    if len(entries) != layer_count:
        return (None,) * layer_count
    return tuple(entries)


def merged_annotations(
    manifest: Mapping[str, str], index: Mapping[str, str], labels: Mapping[str, str]
) -> dict[str, str]:
    """Return the annotations of an image. The manifest has priority, then the index, labels, and legacy labels.

    Legacy `org.label-schema.*` labels are used where the matching `org.opencontainers.image.*` key is not set.
    """
    merged: dict[str, str] = {}
    for old, new in _LEGACY_KEYS.items():
        if value := labels.get(LEGACY_PREFIX + old):
            merged[OCI_PREFIX + new] = value
    merged.update({key: value for key, value in labels.items() if key.startswith(OCI_PREFIX)})
    merged.update(index)
    merged.update(manifest)
    return merged


def normalise_platform(
    *,
    os: str,
    architecture: str,
    variant: str = "",
    os_version: str = "",
    os_features: tuple[str, ...] = (),
) -> Platform:
    """Return the platform in containerd's normal form, so that equal platforms compare equal.

    `arm64/v8` and `amd64/v1` lose their default variant; `arm` without one is `v7`.
    """
    os, architecture, variant = (
        os.strip().lower(),
        architecture.strip().lower(),
        variant.strip().lower(),
    )
    os = {"macos": "darwin"}.get(os, os)
    architecture = {
        "aarch64": "arm64",
        "x86_64": "amd64",
        "x86-64": "amd64",
        "i386": "386",
    }.get(architecture, architecture)
    if architecture in {"armhf", "armel"}:
        architecture, variant = "arm", {"armhf": "v7", "armel": "v6"}[architecture]
    if architecture == "arm64" and variant in {"8", "v8"}:
        variant = ""
    elif architecture == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(os, architecture, variant, os_version, os_features)


def parse_timestamp(value: object) -> datetime | None:
    """Return the time of an RFC 3339 text; None when absent, unreadable or impossible, because it is only shown.

    The text can have nanoseconds; digits beyond microseconds are dropped.
    """
    if not isinstance(value, str) or not (match := _TIMESTAMP.fullmatch(value.strip()[:64])):
        return None
    day, time, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}.{(fraction or '0')[:6]:0<6}{'+00:00' if zone in 'Zz' else zone}")
        return stated(moment.astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def clean(text: str) -> str:
    """Return `text` with NUL and lone surrogates replaced by U+FFFD, because PostgreSQL cannot store them."""
    return _UNSTORABLE.sub("\ufffd", text)


def load_json(content: bytes, what: str) -> Any:
    """Return the JSON in `content`; raises an error for duplicate keys, NaN, deep nesting, and invalid UTF-8."""
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except MalformedManifest:
        raise
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also for invalid UTF-8 and very long numbers
        raise MalformedManifest(f"The {what} is not valid JSON.", problem=type(error).__name__) from None
    if _depth_exceeds(value, JSON_DEPTH_MAX):
        raise LimitExceeded(f"The {what} is nested deeper than {JSON_DEPTH_MAX} levels.", limit=JSON_DEPTH_MAX)
    return value


def _parse_manifest(content: ManifestContent, document: Mapping[str, Any]) -> ManifestDocument:
    if "manifests" in document:
        raise MalformedManifest("The document is served as a manifest, but it is an index (CVE-2021-41190).")
    config = _descriptor(document.get("config"), "config")
    layers = tuple(_descriptor(item, "layers") for item in _array(document.get("layers"), "layers", LAYERS_MAX))
    artifact_type = _media_type(document.get("artifactType"), "artifactType", optional=True)
    if not artifact_type and config.media_type == MediaType.EMPTY:
        raise MalformedManifest("A manifest with the empty config must have an artifactType.")
    if not artifact_type and config.media_type not in IMAGE_CONFIG_TYPES:
        artifact_type = config.media_type
    if artifact_type in IMAGE_CONFIG_TYPES:
        artifact_type = ""
    return ManifestDocument(
        digest=content.digest,
        media_type=content.media_type,
        size_bytes=len(content.content),
        config=config,
        layers=layers,
        subject=_descriptor(document["subject"], "subject") if document.get("subject") is not None else None,
        artifact_type=artifact_type,
        annotations=_string_map(document.get("annotations"), "annotations"),
    )


def _parse_index(content: ManifestContent, document: Mapping[str, Any]) -> IndexDocument:
    if "layers" in document or "config" in document:
        raise MalformedManifest("The document is served as an index, but it is a manifest (CVE-2021-41190).")
    children = _array(document.get("manifests"), "manifests", CHILDREN_MAX)
    manifests = tuple(_descriptor(item, "manifests") for item in children)
    if any(child.digest == content.digest for child in manifests):
        raise MalformedManifest("The index contains itself.")
    return IndexDocument(
        digest=content.digest,
        media_type=content.media_type,
        size_bytes=len(content.content),
        manifests=manifests,
        subject=_descriptor(document["subject"], "subject") if document.get("subject") is not None else None,
        artifact_type=_media_type(document.get("artifactType"), "artifactType", optional=True),
        annotations=_string_map(document.get("annotations"), "annotations"),
    )


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise MalformedManifest(f"{where}: not a descriptor.")
    digest = _digest(value.get("digest"), where)
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _SIZE_MAX:
        raise MalformedManifest(f"{where}: the size is not a whole number of bytes.")
    if (embedded := value.get("data")) is not None:
        _check_embedded(embedded, digest, size, where)
    platform = None
    if value.get("platform") is not None:
        fields = _object(value["platform"], "platform")
        platform = normalise_platform(
            os=_text(fields.get("os"), "os"),
            architecture=_text(fields.get("architecture"), "architecture"),
            variant=_text(fields.get("variant"), "variant"),
            os_version=_text(fields.get("os.version"), "os.version"),
            os_features=_texts(fields.get("os.features"), "os.features"),
        )
    return Descriptor(
        media_type=_media_type(value.get("mediaType"), where),
        digest=digest,
        size_bytes=size,
        annotations=_string_map(value.get("annotations"), "annotations"),
        platform=platform,
        artifact_type=_media_type(value.get("artifactType"), "artifactType", optional=True),
        urls=_texts(value.get("urls"), "urls"),
    )


def _links(value: object, where: str) -> list[Descriptor]:
    """Return the descriptors in one field of a manifest, which holds one, a list, or none."""
    links = []
    for item in value if isinstance(value, list) else [value]:
        if item is None:
            continue
        if not isinstance(item, dict):
            raise MalformedManifest(f"{where}: not a descriptor.")
        fields = {key.lower(): inner for key, inner in item.items()}
        size, urls = fields.get("size"), fields.get("urls")
        links.append(
            Descriptor(
                media_type=_text_or_empty(fields.get("mediatype")),
                digest=_digest(fields.get("digest"), where),
                size_bytes=size if isinstance(size, int) and 0 <= size <= _SIZE_MAX else 0,
                annotations=_texts_of(fields.get("annotations")),
                artifact_type=_text_or_empty(fields.get("artifacttype")),
                urls=tuple(url for url in urls if isinstance(url, str)) if isinstance(urls, list) else (),
            )
        )
    return links


def _text_or_empty(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def _texts_of(value: object) -> dict[str, str]:
    """Return the entries of a map that are texts."""
    items = value.items() if isinstance(value, dict) else ()
    return {clean(key): clean(item) for key, item in items if isinstance(item, str)}


def _check_embedded(embedded: object, digest: Digest, size: int, where: str) -> None:
    """Raise MalformedManifest when embedded data does not match its descriptor (image-spec, descriptor.md, "data")."""
    try:
        raw = base64.b64decode(embedded, validate=True) if isinstance(embedded, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None or len(raw) != size or hashlib.new(digest.algorithm, raw).hexdigest() != digest.encoded:
        raise MalformedManifest(f"{where}: the embedded data does not match the digest and size.")


def _history_entry(value: object) -> HistoryEntry:
    fields = _object(value, "history")
    return HistoryEntry(
        created_at=parse_timestamp(fields.get("created")),
        created_by=_text(fields.get("created_by"), "created_by")[:TEXT_MAX],
        comment=_text(fields.get("comment"), "comment"),
        author=_text(fields.get("author"), "author"),
        is_empty_layer=fields.get("empty_layer") is True,
    )


def _json_object(content: bytes, what: str, keys: Mapping[str, str]) -> dict[str, Any]:
    value = load_json(content, what)
    if not isinstance(value, dict):
        raise MalformedManifest(f"The {what} is not a JSON object.")
    holders = [value, value.get("config"), value.get("subject"), value.get("rootfs")]
    for name in ("layers", "manifests"):
        if isinstance(value.get(name), list):
            holders.extend(value[name])
    for holder in holders:
        for key in holder if isinstance(holder, dict) else ():
            if keys.get(key.lower(), key) != key:
                raise MalformedManifest("A key has a different spelling in the specification.", got=clean(key)[:60])
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedManifest("A key occurs twice in one object.")
    return value


def _finite(text: str) -> float:
    """Return the number; raises MalformedManifest for 1e999, which Python reads as infinity and jsonb rejects."""
    value = float(text)
    if not math.isfinite(value):
        raise MalformedManifest("A number is too large.", got=text[:60])
    return value


def _no_constant(name: str) -> None:
    raise MalformedManifest("A number is not valid in JSON.", got=name)


def _depth_exceeds(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit + 1):
        following: list[object] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(item.values())
            elif isinstance(item, list):
                following.extend(item)
        if not following:
            return False
        level = following
    return True


def _digest(value: object, where: str) -> Digest:
    if not isinstance(value, str):
        raise MalformedManifest(f"{where}: the digest is missing.")
    try:
        return Digest.parse(value)
    except MalformedDigest:
        raise MalformedManifest(f"{where}: not a supported digest.", got=clean(value)[:150]) from None


def _media_type(value: object, where: str, *, optional: bool = False) -> str:
    if optional and value in (None, ""):
        return ""
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
        raise MalformedManifest(f"{where}: not a media type.")
    return value


def _object(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedManifest(f"{where}: not a JSON object.")
    return value


def _array(value: object, where: str, limit: int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedManifest(f"{where}: not a JSON array.")
    if len(value) > limit:
        raise LimitExceeded(f"{where}: more than {limit} entries.", limit=limit)
    return value


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedManifest(f"{where}: not a string.")
    return clean(value)


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(_text(item, where) for item in _array(value, where, TEXTS_MAX))


def _string_map(value: object, where: str) -> dict[str, str]:
    return {clean(key): _text(item, where) for key, item in _object(value, where).items()}
