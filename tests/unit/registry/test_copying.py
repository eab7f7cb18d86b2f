from __future__ import annotations

import json

import pytest

from lifecycle.core.errors import RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.oci.copying import Copied, CopyNotVerified, copy_by_digest
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.types import Descriptor, ManifestContent
from tests.factories import oci
from tests.fakes.registry import InMemoryRegistry


def shelf() -> tuple[InMemoryRegistry, ManifestContent]:
    """Return a registry with an index of two platforms, a referrer of each kind, and a referrer of a referrer."""
    registry = InMemoryRegistry()
    one, two = oci.image("base", "app"), oci.image("base", "app", architecture="arm64")
    for item in (one, two):
        oci.push(registry, "shop/api", item)
    top = oci.index(one, two)
    oci.push_manifest(registry, "shop/api", top, "1.0")
    note = oci.artifact(top, "note")
    reply = oci.artifact(note.manifest, "reply")
    for item in (note, reply):
        oci.push(registry, "shop/api", item)
        oci.attach(registry, "shop/api", item.manifest)
    signature = oci.image("signature")
    oci.push(registry, "shop/api", signature, fallback_tag(one.manifest.digest) + ".sig")
    return registry, top


def copy(registry: InMemoryRegistry, top: ManifestContent) -> Copied:
    return copy_by_digest(
        registry,
        source_repository="shop/api",
        target_repository="production/shop/api",
        digest=top.digest,
        tags=["1.0", "current"],
    )


def assert_complete(registry: InMemoryRegistry, top: ManifestContent) -> None:
    assert registry.manifests["production/shop/api"].keys() >= registry.manifests["shop/api"].keys() - {
        # The source's fallback indexes are merged, so the target's may be other documents.
        registry.tags_of["shop/api"][tag]
        for tag in registry.tags("shop/api")
        if tag.startswith("sha256-") and "." not in tag
    }
    assert registry.blobs["production/shop/api"] == registry.blobs["shop/api"]
    assert registry.tags("production/shop/api") == sorted(["current", *registry.tags("shop/api")])
    assert [d.digest for d in registry.referrers("production/shop/api", top.digest)] == [
        d.digest for d in registry.referrers("shop/api", top.digest)
    ]


def test_a_copy_is_whole_with_referrers_of_referrers() -> None:
    registry, top = shelf()
    copy(registry, top)
    assert_complete(registry, top)


def test_a_second_copy_writes_nothing() -> None:
    registry, top = shelf()
    first = copy(registry, top)
    registry.fail_after, registry._writes = 0, 0
    assert copy(registry, top).manifests == first.manifests


def test_a_copy_that_is_killed_anywhere_is_finished_by_the_next_and_shows_no_tag_before() -> None:
    clean, top = shelf()
    before = clean._writes
    copy(clean, top)
    total = clean._writes - before
    assert total > 10
    for died_at in range(total):
        registry, top = shelf()
        registry.fail_after = registry._writes + died_at
        with pytest.raises(RegistryUnavailable):
            copy(registry, top)
        if died_at < total - 2:
            assert "1.0" not in registry.tags("production/shop/api")
        registry.fail_after = None
        copy(registry, top)
        assert_complete(registry, top)


def test_blobs_are_uploaded_when_the_registry_does_not_mount() -> None:
    registry, top = shelf()
    registry.mounts = False
    done = copy(registry, top)
    assert done.mounted == 0
    assert_complete(registry, top)


def test_a_target_that_lost_a_blob_is_no_success() -> None:
    class Lossy(InMemoryRegistry):
        def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> Digest:
            digest = super().put_manifest(repository, reference, content, media_type)
            if repository.startswith("production/"):
                self.blobs[repository].pop(sorted(self.blobs[repository])[0], None)
            return digest

    registry = Lossy()
    item = oci.image("base")
    oci.push(registry, "shop/api", item, "1")
    with pytest.raises(CopyNotVerified):
        copy(registry, item.manifest)
    assert registry.tags("production/shop/api") == []


def test_a_target_that_serves_other_bytes_is_no_success() -> None:
    class Changing(InMemoryRegistry):
        def get_manifest(self, repository: str, reference: str) -> ManifestContent:
            found = super().get_manifest(repository, reference)
            if repository.startswith("production/"):
                return ManifestContent(found.digest, found.media_type, found.content + b" ")
            return found

    registry = Changing()
    item = oci.image("base")
    oci.push(registry, "shop/api", item, "1")
    with pytest.raises(CopyNotVerified):
        copy(registry, item.manifest)


def test_the_targets_own_referrers_are_kept() -> None:
    registry, top = shelf()
    copy(registry, top)
    own = oci.artifact(top, "made in production")
    oci.push(registry, "production/shop/api", own)
    oci.attach(registry, "production/shop/api", own.manifest)
    another = oci.artifact(top, "a later note")
    oci.push(registry, "shop/api", another)
    oci.attach(registry, "shop/api", another.manifest)
    copy(registry, top)
    listed = {entry.digest for entry in registry.referrers("production/shop/api", top.digest)}
    assert {own.manifest.digest, another.manifest.digest} <= listed
    assert len(listed) == 3


def test_a_listed_artifact_that_refers_elsewhere_is_left_behind() -> None:
    registry, top = shelf()
    stranger = oci.artifact(oci.image("other").manifest, "stranger")
    oci.push(registry, "shop/api", stranger)
    tag = fallback_tag(top.digest)
    document = json.loads(registry.get_manifest("shop/api", tag).content)
    fake = Descriptor(stranger.manifest.media_type, stranger.manifest.digest, len(stranger.manifest.content))
    document["manifests"].append({"mediaType": fake.media_type, "digest": fake.digest.text, "size": fake.size_bytes})
    raw = json.dumps(document).encode()
    registry.put_manifest("shop/api", tag, raw, document["mediaType"])
    copy(registry, top)
    assert stranger.manifest.digest.text not in registry.manifests["production/shop/api"]
