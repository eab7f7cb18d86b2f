"""Manifests and configurations: parsing, limits and normalised values."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lifecycle.core.errors import LimitExceeded, MalformedManifest
from lifecycle.core.types import Digest
from lifecycle.oci.constants import MediaType
from lifecycle.oci.manifests import (
    history_of_layers,
    merged_annotations,
    normalise_platform,
    parse,
    parse_config,
    parse_timestamp,
)
from lifecycle.oci.types import ManifestContent, ManifestDocument
from tests.factories import oci


def content(document: Any, media_type: str = MediaType.OCI_MANIFEST) -> ManifestContent:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return ManifestContent(Digest.of(raw), media_type, raw)


def manifest(**changes: Any) -> dict[str, Any]:
    document = json.loads(oci.image("base", "app").manifest.content)
    document.update(changes)
    return {key: value for key, value in document.items() if value is not None}


def test_parse_returns_layers_of_image_in_order() -> None:
    item = oci.image("base", "app", annotations={"a": "b"})
    document = parse(item.manifest)
    assert isinstance(document, ManifestDocument)
    assert document.is_image
    assert [layer.digest.text for layer in document.layers] == [oci.sha(oci.layer(t)[0]) for t in ("base", "app")]
    assert document.annotations == {"a": "b"}


def test_parse_accepts_oci_manifest_without_media_type() -> None:
    assert isinstance(parse(content(manifest(mediaType=None))), ManifestDocument)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        (manifest(manifests=[]), MediaType.OCI_MANIFEST),  # CVE-2021-41190
        (manifest(manifests=[]), MediaType.OCI_INDEX),
        (manifest(mediaType=None), MediaType.OCI_INDEX),
        (manifest(), MediaType.DOCKER_MANIFEST),  # declares one type but is served as another
        (manifest(Layers=[]), MediaType.OCI_MANIFEST),  # Go would read it as `layers`
        (manifest(schemaVersion=1), MediaType.OCI_MANIFEST),
        (manifest(schemaVersion=True), MediaType.OCI_MANIFEST),
        (manifest(fsLayers=[]), MediaType.OCI_MANIFEST),
        (manifest(config=None), MediaType.OCI_MANIFEST),
        (manifest(layers={}), MediaType.OCI_MANIFEST),
        (manifest(layers=[{"mediaType": "a/b", "digest": "sha256:abc", "size": 1}]), MediaType.OCI_MANIFEST),
        (manifest(layers=[{"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": -1}]), MediaType.OCI_MANIFEST),
        (manifest(layers=[{"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": True}]), MediaType.OCI_MANIFEST),
        (manifest(layers=[{"mediaType": "a/b", "digest": "md5:" + "a" * 32, "size": 1}]), MediaType.OCI_MANIFEST),
        (manifest(annotations={"a": 1}), MediaType.OCI_MANIFEST),
        (manifest(), MediaType.DOCKER_SCHEMA_1_SIGNED),
        (manifest(), "application/json"),
        (b'{"schemaVersion":2,"schemaVersion":2}', MediaType.OCI_MANIFEST),
        (b'{"schemaVersion":NaN}', MediaType.OCI_MANIFEST),
        (b"\xff", MediaType.OCI_MANIFEST),
        (b"[" * 100_000, MediaType.OCI_MANIFEST),
        (b'{"schemaVersion":' + b"9" * 5000 + b"}", MediaType.OCI_MANIFEST),
        (b"[]", MediaType.OCI_MANIFEST),
    ],
)
def test_parse_refuses_ambiguous_or_malformed_manifest(document: Any, media_type: str) -> None:
    with pytest.raises(MalformedManifest):
        parse(content(document, media_type))


def test_parse_checks_digest_of_embedded_data() -> None:
    payload = b"hello"
    entry = {"mediaType": "text/plain", "digest": oci.sha(payload), "size": 5}
    valid = {**entry, "data": base64.b64encode(payload).decode()}
    assert isinstance(parse(content(manifest(layers=[valid]))), ManifestDocument)
    with pytest.raises(MalformedManifest, match="embedded"):
        parse(content(manifest(layers=[{**entry, "data": base64.b64encode(b"jello").decode()}])))


def test_parse_requires_artifact_type_with_empty_config() -> None:
    config = {"mediaType": MediaType.EMPTY, "digest": oci.sha(b"{}"), "size": 2}
    with pytest.raises(MalformedManifest, match="artifactType"):
        parse(content(manifest(config=config)))
    document = parse(content(manifest(config=config, artifactType="application/vnd.example")))
    assert isinstance(document, ManifestDocument)
    assert not document.is_image


@pytest.mark.parametrize(
    "document",
    [
        manifest(layers=[manifest()["layers"][0]] * 1001),
        manifest(x=json.loads("[" * 70 + "]" * 70)),
        b" " * (4 * 1024 * 1024 + 1),
    ],
)
def test_parse_refuses_manifest_above_a_limit(document: Any) -> None:
    with pytest.raises(LimitExceeded):
        parse(content(document))


def test_index_with_ten_thousand_children_is_refused() -> None:
    child = {"mediaType": MediaType.OCI_MANIFEST, "digest": "sha256:" + "a" * 64, "size": 1}
    document = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": [child] * 10_000}
    with pytest.raises(LimitExceeded):
        parse(content(document, MediaType.OCI_INDEX))


@pytest.mark.parametrize(
    ("architecture", "variant", "expected"),
    [
        ("aarch64", "", "linux/arm64"),
        ("arm64", "v8", "linux/arm64"),
        ("arm64", "v9", "linux/arm64/v9"),
        ("x86_64", "v1", "linux/amd64"),
        ("amd64", "v3", "linux/amd64/v3"),
        ("arm", "", "linux/arm/v7"),
        ("armhf", "", "linux/arm/v7"),
        ("armel", "", "linux/arm/v6"),
        ("arm", "6", "linux/arm/v6"),
        ("riscv64", "", "linux/riscv64"),
    ],
)
def test_platform_is_normalised(architecture: str, variant: str, expected: str) -> None:
    assert str(normalise_platform(os="Linux", architecture=architecture, variant=variant)) == expected


def test_configuration_is_parsed_with_history_by_layer() -> None:
    item = oci.image("base", "app", labels={"a": "b\x00c"})
    raw = json.dumps(item.config).encode()
    config = parse_config(raw, Digest.of(raw))
    assert config.labels == {"a": "b\ufffdc"}  # PostgreSQL stores no NUL
    assert [entry.created_by if entry else None for entry in history_of_layers(config, 2)] == ["COPY base", "COPY app"]
    assert history_of_layers(config, 3) == (None, None, None)
    assert [d.text for d in config.diff_ids] == item.diff_ids


def test_annotation_of_manifest_wins_then_index_then_label() -> None:
    key = "org.opencontainers.image.source"
    assert merged_annotations({}, {}, {"org.label-schema.vcs-url": "legacy"})[key] == "legacy"
    assert merged_annotations({}, {}, {key: "label", "org.label-schema.vcs-url": "legacy"})[key] == "label"
    assert merged_annotations({}, {key: "index"}, {key: "label"})[key] == "index"
    assert merged_annotations({key: "manifest"}, {key: "index"}, {key: "label"})[key] == "manifest"


def test_timestamp_has_microseconds_or_is_none() -> None:
    moment = parse_timestamp("2026-01-02T03:04:05.406751454Z")
    assert moment is not None
    assert moment.isoformat() == "2026-01-02T03:04:05.406751+00:00"
    assert parse_timestamp("2026-99-02T03:04:05Z") is None
    assert parse_timestamp("0001-01-01T00:00:00+14:00") is None
    assert parse_timestamp(7) is None
