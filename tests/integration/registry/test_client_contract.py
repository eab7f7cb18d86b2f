"""The contract of every RegistryClient, in memory and against a real CNCF Distribution."""

from __future__ import annotations

import io
import json
import uuid

import pytest

from lifecycle.core.errors import LimitExceeded, RegistryRefused, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.oci.client import BlobUnknown, DigestMismatch, ManifestUnknown, RegistryClient
from lifecycle.oci.constants import MediaType
from lifecycle.oci.copying import copy_by_digest
from lifecycle.oci.http_client import fallback_tag
from tests.factories import oci
from tests.fakes.registry import InMemoryRegistry

ABSENT = Digest("sha256:" + "0" * 64)


@pytest.fixture(params=["memory", "http"])
def client(request: pytest.FixtureRequest) -> RegistryClient:
    if request.param == "memory":
        return InMemoryRegistry()
    made: RegistryClient = request.getfixturevalue("real_client")
    return made


@pytest.fixture
def name() -> str:
    return f"shop/{uuid.uuid4().hex[:12]}"


def test_manifest_is_returned_unchanged(client: RegistryClient, name: str) -> None:
    item = oci.image("base", "app")
    assert oci.push(client, name, item, "1.0") == item.manifest.digest
    assert client.get_manifest(name, "1.0") == item.manifest
    assert client.get_manifest(name, item.manifest.digest.text) == item.manifest
    found = client.resolve(name, "1.0")
    assert found is not None
    assert (found.digest, found.media_type, found.size_bytes) == (
        item.manifest.digest,
        item.manifest.media_type,
        len(item.manifest.content),
    )


def test_missing_content_is_unknown(client: RegistryClient, name: str) -> None:
    assert client.resolve(name, "1.0") is None
    assert client.blob_size(name, ABSENT) is None
    assert client.tags(name) == []
    assert client.referrers(name, ABSENT) == []
    assert client.delete_manifest(name, ABSENT) is False
    with pytest.raises(ManifestUnknown):
        client.get_manifest(name, "1.0")
    with pytest.raises(ManifestUnknown):
        client.get_manifest_if_changed(name, "1.0", ABSENT)
    with pytest.raises(BlobUnknown):
        client.get_blob(name, ABSENT, max_bytes=10)


def test_conditional_get_returns_manifest_only_after_tag_moved(client: RegistryClient, name: str) -> None:
    first, second = oci.image("one"), oci.image("two")
    oci.push(client, name, first, "1.0")
    assert client.get_manifest_if_changed(name, "1.0", first.manifest.digest) is None
    oci.push(client, name, second, "1.0")
    assert client.get_manifest_if_changed(name, "1.0", first.manifest.digest) == second.manifest


def test_blobs_are_streamed_checked_and_limited(client: RegistryClient, name: str) -> None:
    content = b"x" * 100_000
    digest = Digest.of(content)
    client.upload_blob(name, digest, content)
    client.upload_blob(name, digest, content)
    assert client.blob_size(name, digest) == 100_000
    into = io.BytesIO()
    assert client.fetch_blob(name, digest, into, size_bytes=100_000) == 100_000
    assert into.getvalue() == content
    with pytest.raises(LimitExceeded):
        client.get_blob(name, digest, max_bytes=10)
    with pytest.raises(LimitExceeded):
        client.fetch_blob(name, digest, io.BytesIO(), max_bytes=10)
    with pytest.raises(RegistryRefused):  # complete, but shorter than its manifest declares: a retry cannot help
        client.fetch_blob(name, digest, io.BytesIO(), size_bytes=100_001)


def test_blob_with_wrong_digest_is_refused(client: RegistryClient, name: str) -> None:
    with pytest.raises(RegistryRefused):
        client.upload_blob(name, ABSENT, b"something else")


def test_manifest_with_wrong_digest_is_refused(client: RegistryClient, name: str) -> None:
    item = oci.image("base")
    oci.push(client, name, item)
    with pytest.raises((RegistryRefused, DigestMismatch)):
        client.put_manifest(name, ABSENT.text, item.manifest.content, item.manifest.media_type)


def test_blob_is_mounted_from_another_repository(client: RegistryClient, name: str) -> None:
    content = name.encode()
    digest = Digest.of(content)
    client.upload_blob(name, digest, content)
    assert client.mount_blob(name + "-target", digest, source_repository=name)
    assert client.get_blob(name + "-target", digest, max_bytes=100) == content
    assert not client.mount_blob(name + "-target", ABSENT, source_repository=name)


def test_deleting_a_manifest_removes_its_tags(client: RegistryClient, name: str) -> None:
    item = oci.image("base")
    oci.push(client, name, item, "1.0")
    assert client.tags(name) == ["1.0"]
    assert client.delete_manifest(name, item.manifest.digest)
    assert client.tags(name) == []
    assert client.resolve(name, "1.0") is None


def test_deleting_a_tag_keeps_its_manifest_and_other_tags(client: RegistryClient, name: str) -> None:
    item = oci.image("base")
    oci.push(client, name, item, "1.0")
    oci.push(client, name, item, "2.0")
    assert client.delete_tag(name, "1.0")
    assert client.tags(name) == ["2.0"]
    assert client.resolve(name, "1.0") is None
    assert client.get_manifest(name, item.manifest.digest.text).content == item.manifest.content
    assert client.delete_tag(name, "1.0") is False


def test_catalog_lists_every_repository(client: RegistryClient, name: str) -> None:
    names = [f"{name}/{number}" for number in range(3)]
    for each in names:
        oci.push(client, each, oci.image("base"), "1")
    assert set(names) <= set(client.repositories())


def test_referrers_are_listed_and_copied_with_the_image(client: RegistryClient, name: str) -> None:
    item = oci.image("base", name)
    top = oci.index(item, oci.image("base", name, architecture="arm64"))
    oci.push(client, name, item)
    oci.push(client, name, oci.image("base", name, architecture="arm64"))
    oci.push_manifest(client, name, top, "1.0")
    note = oci.artifact(top, name)
    oci.push(client, name, note)
    oci.attach(client, name, note.manifest)
    for _ in range(2):
        done = copy_by_digest(
            client,
            source_repository=name,
            target_repository=f"production/{name}",
            digest=top.digest,
            tags=["1.0", "current"],
        )
        assert (done.manifests, done.referrers) == (4, 1)
    assert client.get_manifest(f"production/{name}", "current") == top
    assert [entry.digest for entry in client.referrers(f"production/{name}", top.digest)] == [note.manifest.digest]


def test_registry_as_a_whole_answers(client: RegistryClient) -> None:
    client.check()


def test_index_over_layers_is_accepted_and_its_layers_are_no_manifests(client: RegistryClient, name: str) -> None:
    layer = oci.layer("cache")[0]
    digest = Digest.of(layer)
    client.upload_blob(name, digest, layer)
    entry = {"mediaType": oci.GZIP_LAYER, "digest": digest.text, "size": len(layer)}
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX.value, "manifests": [entry]}
    top = client.put_manifest(name, "buildcache", json.dumps(index).encode(), MediaType.OCI_INDEX)
    with pytest.raises(RegistryUnavailable, match=f"{name}@{digest}"):  # not a 404: this is why they are not fetched
        client.get_manifest(name, digest.text)
    done = copy_by_digest(
        client, source_repository=name, target_repository=f"{name}-copy", digest=top, tags=["buildcache"]
    )
    assert (done.manifests, done.blobs) == (1, 1)
    assert client.blob_size(f"{name}-copy", digest) == len(layer)


def test_referrer_with_an_annotation_of_2_mib_is_copied(client: RegistryClient, name: str) -> None:
    item = oci.image("base")
    oci.push(client, name, item, "1.0")
    signature = oci.image("signature", annotations={"bundle": "x" * 2 * 1024 * 1024})
    tag = fallback_tag(item.manifest.digest) + ".att"
    oci.push(client, name, signature, tag)
    done = copy_by_digest(
        client, source_repository=name, target_repository=f"{name}-copy", digest=item.manifest.digest, tags=["1.0"]
    )
    assert done.referrers == 1
    assert client.get_manifest(f"{name}-copy", tag) == signature.manifest
