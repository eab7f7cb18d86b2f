"""Copies by digest: complete with referrers, repeatable and verified."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.core.errors import LifecycleError, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.oci.constants import MediaType
from lifecycle.oci.copying import Copied, CopyNotVerified, ReferrerNotCopied, copy_by_digest
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.manifests import parse_links
from lifecycle.oci.types import Descriptor, ManifestContent
from tests.factories import oci
from tests.fakes.registry import InMemoryRegistry, blob


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


# --- Nothing is left out, and nothing odd stops a copy -------------------------------------------------------------


def attested(annotation: str = "short") -> tuple[InMemoryRegistry, ManifestContent, ManifestContent]:
    """Return a registry with an image, and its attestation under cosign's tag, with one annotation."""
    registry = InMemoryRegistry()
    item = oci.image("base", "app")
    oci.push(registry, "shop/api", item, "1.0")
    envelope = blob(registry, "shop/api", b"{}", "application/vnd.dsse.envelope.v1+json")
    config = blob(registry, "shop/api", b"{ }", MediaType.OCI_CONFIG.value)
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": config,
        "layers": [{**envelope, "annotations": {"dev.sigstore.cosign/bundle": annotation}}],
    }
    raw = json.dumps(document).encode()
    attestation = ManifestContent(Digest.of(raw), MediaType.OCI_MANIFEST.value, raw)
    oci.push_manifest(registry, "shop/api", attestation, fallback_tag(item.manifest.digest) + ".att")
    return registry, item.manifest, attestation


def test_attestation_with_an_annotation_of_3_mib_is_copied() -> None:
    registry, top, attestation = attested("x" * 3 * 1024 * 1024)
    assert copy(registry, top).referrers == 1
    tag = fallback_tag(top.digest) + ".att"
    assert registry.get_manifest("production/shop/api", tag) == attestation


@pytest.mark.parametrize(
    "change",
    [
        {"layers_count": 2000},
        {"annotations": {str(number): "x" for number in range(5000)}},
        {"annotations": {"number": 1, "null": None}},
        {"config": None},
        {"extra": json.loads("[" * 200 + "]" * 200)},
        {"platform": "linux"},
        {"schemaVersion": "2"},
    ],
)
def test_referrer_that_we_could_not_use_is_copied_unchanged(change: dict[str, Any]) -> None:
    registry, top, attestation = attested()
    document = json.loads(attestation.content)
    if count := change.get("layers_count"):
        document["layers"] *= count
    else:
        document.update(change)
    raw = json.dumps({**document, "subject": {"digest": top.digest.text, "size": 1, "mediaType": "a/b"}}).encode()
    odd = ManifestContent(Digest.of(raw), MediaType.OCI_MANIFEST.value, raw)
    oci.push_manifest(registry, "shop/api", odd)
    entry = {"mediaType": odd.media_type, "digest": odd.digest.text, "size": len(raw), "annotations": {"n": 1}}
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX.value, "manifests": [entry]}
    tag = fallback_tag(top.digest)
    registry.put_manifest("shop/api", tag, json.dumps(index).encode(), MediaType.OCI_INDEX)
    assert copy(registry, top).referrers == 2
    assert registry.get_manifest("production/shop/api", odd.digest.text) == odd
    assert [entry.digest for entry in registry.referrers("production/shop/api", top.digest)] == [odd.digest]


@pytest.mark.parametrize("problem", ["the registry answers 500", "the content is not JSON", "a blob is missing"])
def test_copy_that_would_leave_a_referrer_out_fails_and_names_it(problem: str) -> None:
    registry, top = registry_with_index()
    note = registry.referrers("shop/api", top.digest)[0].digest.text
    expected: type[LifecycleError] = ReferrerNotCopied
    if problem == "the registry answers 500":
        registry.broken = {note}
        expected = RegistryUnavailable
    elif problem == "the content is not JSON":
        broken = ManifestContent(Digest(note), MediaType.OCI_MANIFEST.value, b"not JSON")
        registry.manifests["shop/api"][note] = broken
    else:
        payload = parse_links(registry.manifests["shop/api"][note]).blobs[1]
        del registry.blobs["shop/api"][payload.digest.text]
    with pytest.raises(expected, match=note):
        copy(registry, top)
    assert "1.0" not in registry.tags("production/shop/api")


def test_referrer_that_the_source_deleted_is_reported() -> None:
    registry, top = registry_with_index()
    note = registry.referrers("shop/api", top.digest)[0].digest.text
    del registry.manifests["shop/api"][note]
    done = copy(registry, top)
    assert done.deleted == (note,)
    assert registry.tags("production/shop/api")


def test_referrers_of_referrers_are_copied_at_any_depth() -> None:
    registry = InMemoryRegistry()
    item = oci.image("base")
    oci.push(registry, "shop/api", item, "1.0")
    subject = item.manifest
    for level in range(12):
        reply = oci.artifact(subject, f"level {level}")
        oci.push(registry, "shop/api", reply)
        oci.attach(registry, "shop/api", reply.manifest)
        subject = reply.manifest
    assert copy(registry, item.manifest).referrers == 12
    assert subject.digest.text in registry.manifests["production/shop/api"]


def test_index_over_blobs_is_copied_with_its_blobs() -> None:
    registry = InMemoryRegistry()
    layer = blob(registry, "shop/api", b"layer", oci.GZIP_LAYER)
    cache = blob(registry, "shop/api", b"{}", "application/vnd.buildkit.cacheconfig.v0")
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX.value, "manifests": [layer, cache]}
    raw = json.dumps(index).encode()
    top = ManifestContent(Digest.of(raw), MediaType.OCI_INDEX.value, raw)
    oci.push_manifest(registry, "shop/api", top, "buildcache")
    done = copy(registry, top)
    assert (done.manifests, done.blobs) == (1, 2)
    assert registry.blobs["production/shop/api"] == registry.blobs["shop/api"]


def test_wrong_size_of_a_blob_in_a_manifest_does_not_stop_copy() -> None:
    registry, top, attestation = attested()
    document = json.loads(attestation.content)
    document["layers"][0]["size"] = 7_000
    raw = json.dumps(document).encode()
    odd = ManifestContent(Digest.of(raw), MediaType.OCI_MANIFEST.value, raw)
    oci.push_manifest(registry, "shop/api", odd, fallback_tag(top.digest) + ".att")
    for registry.mounts in (True, False):
        registry.blobs["production/shop/api"].clear()
        assert copy(registry, top).referrers == 1


def test_list_of_referrers_in_target_stays_below_the_manifest_limit() -> None:
    registry = InMemoryRegistry()
    item = oci.image("base")
    oci.push(registry, "shop/api", item, "1.0")
    for number in range(3):
        note = oci.artifact(item.manifest, f"note {number}")
        document = {**json.loads(note.manifest.content), "annotations": {"bundle": "x" * 2 * 1024 * 1024}}
        raw = json.dumps(document).encode()
        big = ManifestContent(Digest.of(raw), MediaType.OCI_MANIFEST.value, raw)
        oci.push(registry, "shop/api", note)
        oci.attach(registry, "shop/api", big)
    assert copy(registry, item.manifest).referrers == 3
    tag = fallback_tag(item.manifest.digest)
    assert len(registry.get_manifest("production/shop/api", tag).content) < 4 * 1024 * 1024
