"""Copies by digest: complete with referrers, repeatable and verified."""

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


def registry_with_index() -> tuple[InMemoryRegistry, ManifestContent]:
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
        # Fallback indexes are merged, so those of the target may differ.
        registry.tags_of["shop/api"][tag]
        for tag in registry.tags("shop/api")
        if tag.startswith("sha256-") and "." not in tag
    }
    assert registry.blobs["production/shop/api"] == registry.blobs["shop/api"]
    assert registry.tags("production/shop/api") == sorted(["current", *registry.tags("shop/api")])
    assert [d.digest for d in registry.referrers("production/shop/api", top.digest)] == [
        d.digest for d in registry.referrers("shop/api", top.digest)
    ]


def test_copy_includes_referrers_of_referrers() -> None:
    registry, top = registry_with_index()
    copy(registry, top)
    assert_complete(registry, top)


def test_second_copy_writes_nothing() -> None:
    registry, top = registry_with_index()
    first = copy(registry, top)
    registry.fail_after, registry._writes = 0, 0
    assert copy(registry, top).manifests == first.manifests


def test_copy_killed_at_any_write_is_completed_by_next_and_sets_tags_last() -> None:
    clean, top = registry_with_index()
    before = clean._writes
    copy(clean, top)
    total = clean._writes - before
    assert total > 10
    for failed_at in range(total):
        registry, top = registry_with_index()
        registry.fail_after = registry._writes + failed_at
        with pytest.raises(RegistryUnavailable):
            copy(registry, top)
        if failed_at < total - 2:
            assert "1.0" not in registry.tags("production/shop/api")
        registry.fail_after = None
        copy(registry, top)
        assert_complete(registry, top)


def test_blobs_are_uploaded_when_registry_cannot_mount() -> None:
    registry, top = registry_with_index()
    registry.mounts = False
    done = copy(registry, top)
    assert done.mounted == 0
    assert_complete(registry, top)


def test_copy_fails_without_tags_when_target_loses_a_blob() -> None:
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


def test_copy_fails_when_target_serves_other_bytes() -> None:
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


def test_own_referrers_of_target_are_kept() -> None:
    registry, top = registry_with_index()
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


def test_listed_artifact_with_other_subject_is_not_copied() -> None:
    registry, top = registry_with_index()
    unrelated = oci.artifact(oci.image("other").manifest, "unrelated")
    oci.push(registry, "shop/api", unrelated)
    tag = fallback_tag(top.digest)
    document = json.loads(registry.get_manifest("shop/api", tag).content)
    entry = Descriptor(unrelated.manifest.media_type, unrelated.manifest.digest, len(unrelated.manifest.content))
    document["manifests"].append({"mediaType": entry.media_type, "digest": entry.digest.text, "size": entry.size_bytes})
    raw = json.dumps(document).encode()
    registry.put_manifest("shop/api", tag, raw, document["mediaType"])
    copy(registry, top)
    assert unrelated.manifest.digest.text not in registry.manifests["production/shop/api"]
