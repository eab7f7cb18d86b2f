"""SBOMs that a registry holds: kept, and preferred only while a trusted source stands for them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.models import User
from accounts.queries import system_user
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.oci.constants import MediaType
from lifecycle.oci.types import ManifestContent
from lifecycle.registry.models import Image
from lifecycle.sbom import brought
from lifecycle.sbom.models import PackageList
from lifecycle.sbom.packages import Package
from lifecycle.sbom.queries import packages_of
from lifecycle.sbom.services import Content, store
from lifecycle.signatures.constants import CYCLONEDX, IN_TOTO
from lifecycle.trust import attached, sboms, services
from tests.factories import dock, oci
from tests.factories.signatures import new_key, statement
from tests.factories.trusting import attach, attach_bundle, key_signer, source
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db
SPDX = "https://spdx.dev/Document"


def cyclonedx(*purls: str, **more: Any) -> dict[str, Any]:
    components = [{"type": "library", "name": purl, "purl": purl} for purl in purls]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components, **more}


@pytest.fixture
def admin() -> User:
    return User.objects.create_superuser("admin", password="dock-side-pass")


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An image in shop/api of an in-memory registry, ingested and scanned: pkg:pypi/ours@1."""
    registry = InMemoryRegistry()
    answer_with(registry, monkeypatch)
    where = dock.repository("shop/api")
    item = oci.image("base", "app")
    oci.push(registry, "shop/api", item, "1")
    ingest_manifest(where.registry_id, "shop/api", item.manifest.digest.text, tag="1", client=registry)
    image = Image.objects.get(digest=item.manifest.digest.text)
    scan = Content([Package("pkg:pypi/ours@1")], format="syft-json", tool="syft 1", document=b"{}")
    store({image.pk: scan}, actor=system_user())
    return SimpleNamespace(registry=registry, where=where, item=item, image=image, manifest=item.manifest)


def read(image: Image) -> list[str]:
    """Verify the signatures, and read the SBOMs, as the workers do; return the log of the reading."""
    Job.objects.filter(kind__in=("verify", "read-sboms")).delete()
    job = services.queue_check(image.pk)
    running.run(job.pk)
    lines = []
    for reading in Job.objects.filter(kind="read-sboms", state="waiting"):
        running.run(reading.pk)
        reading.refresh_from_db()
        assert reading.state == "succeeded", reading.last_error
        lines += list(reading.log_lines.values_list("text", flat=True))
    return lines


def purls(image: Image) -> set[str]:
    return {item.package.purl for item in packages_of(image)}


def test_a_signed_sbom_decides_while_its_signer_is_trusted(pushed: SimpleNamespace, admin: User) -> None:
    key, digest = new_key(), pushed.manifest.digest.text
    trusted = source(admin, "releases", "localhost:5000/shop/*", signers=[key_signer(key)])
    stranger = statement(digest, CYCLONEDX, cyclonedx("pkg:pypi/stranger@1"))
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, new_key(), stranger)
    other = statement(oci.sha(b"other"), CYCLONEDX, cyclonedx())
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, other)
    read(pushed.image)
    assert purls(pushed.image) == {"pkg:pypi/ours@1"}
    good = statement(digest, CYCLONEDX, cyclonedx("pkg:pypi/signed@1"))
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, good)
    ours = cyclonedx("pkg:pypi/old@1", metadata={"properties": [{"name": "gravingdock:distro", "value": ""}]})
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, statement(digest, CYCLONEDX, ours))
    broken = statement(digest, SPDX, {"spdxVersion": "SPDX-1.0"})
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, broken)
    lines = read(pushed.image)
    assert any("only SPDX 2.2, 2.3 and 3.0 are read" in line for line in lines), lines
    assert purls(pushed.image) == {"pkg:pypi/signed@1"}
    found = {row.pk: row for row in PackageList.objects.filter(image=pushed.image, kind="registry")}
    standing = sboms.standings(list(found.values()))
    assert sorted(standing[pk].why for pk in found) == ["No trusted source has signed it.", "Signed by releases."]
    assert read(pushed.image) == lines  # the same again: nothing is read twice
    assert PackageList.objects.filter(image=pushed.image).count() == 3

    services.retire_source(trusted.pk, actor=admin)
    assert sboms.choose_due() == 1  # the next round of the sweep
    assert purls(pushed.image) == {"pkg:pypi/ours@1"}


def test_a_source_of_one_team_does_not_decide_for_another(pushed: SimpleNamespace, admin: User) -> None:
    key = new_key()
    source(admin, "shop-releases", "localhost:5000/shop/*", signers=[key_signer(key)], teams=["shop"])
    good = statement(pushed.manifest.digest.text, CYCLONEDX, cyclonedx("pkg:pypi/signed@1"))
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, good)
    read(pushed.image)
    assert purls(pushed.image) == {"pkg:pypi/signed@1"}
    dock.push(dock.repository("other/copy"), pushed.image, "1")
    sboms.choose_due()
    assert purls(pushed.image) == {"pkg:pypi/ours@1"}


def test_documents_that_nobody_signed_are_kept_as_advice(
    pushed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        text = json.dumps(cyclonedx(f"pkg:pypi/plain@{number}"))
        attach(pushed.registry, "shop/api", pushed.manifest, text, "application/vnd.cyclonedx+json")
    monkeypatch.setattr(attached, "UNSIGNED_MAX", 2)
    read(pushed.image)
    assert purls(pushed.image) == {"pkg:pypi/ours@1"}
    assert PackageList.objects.filter(image=pushed.image, kind="registry").count() == 2


def test_the_attestation_manifests_of_buildkit_are_read_for_their_platform(
    pushed: SimpleNamespace, admin: User
) -> None:
    document = {
        "spdxVersion": "SPDX-2.3",
        "packages": [
            {"SPDXID": "SPDXRef-a", "name": "a", "versionInfo": "1",
             "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:pypi/a@1"}]}
        ],
    }  # fmt: skip
    payload = statement(pushed.manifest.digest.text, SPDX, document)
    config = b'{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}'
    manifest = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": {"mediaType": MediaType.OCI_CONFIG.value, "digest": oci.sha(config), "size": len(config)},
        "layers": [{"mediaType": IN_TOTO, "digest": oci.sha(payload), "size": len(payload)}],
    }
    content = json.dumps(manifest).encode()
    for blob in (payload, config):
        pushed.registry.upload_blob("shop/api", oci.Digest.of(blob), blob)
    held = ManifestContent(oci.Digest.of(content), MediaType.OCI_MANIFEST.value, content)
    oci.push_manifest(pushed.registry, "shop/api", held)
    top = json.loads(oci.index(pushed.item).content)
    top["manifests"].append(
        {
            "mediaType": held.media_type, "digest": held.digest.text, "size": len(content),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": pushed.manifest.digest.text,
            },
        }
    )  # fmt: skip
    raw = json.dumps(top).encode()
    index = ManifestContent(oci.Digest.of(raw), MediaType.OCI_INDEX.value, raw)
    oci.push_manifest(pushed.registry, "shop/api", index, "both")
    ingest_manifest(pushed.where.registry_id, "shop/api", index.digest.text, tag="both", client=pushed.registry)
    read(Image.objects.get(digest=index.digest.text))
    row = PackageList.objects.get(image=pushed.image, kind="registry")
    assert (row.package_count, row.sbom.format, row.is_used) == (1, "SPDX 2.3 JSON", False)
    assert row.repository == pushed.where
    # A person of the team can decide that it counts, by sending what it says.
    maker = dock.user("maker", "creator", of=dock.team("shop"))
    brought.send(pushed.image.digest, json.dumps(document).encode(), actor=maker)
    assert purls(pushed.image) == {"pkg:pypi/a@1"}


def test_older_attestations_make_room_and_are_not_read_again(
    pushed: SimpleNamespace, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, digest = new_key(), pushed.manifest.digest.text
    source(admin, "releases", "localhost:5000/shop/*", signers=[key_signer(key)])
    monkeypatch.setattr(brought, "KEPT_MAX", 2)
    for number in range(4):
        payload = statement(digest, CYCLONEDX, cyclonedx(f"pkg:pypi/signed@{number}"))
        attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, payload)
        read(pushed.image)
        assert purls(pushed.image) == {f"pkg:pypi/signed@{number}"}
    read(pushed.image)
    assert purls(pushed.image) == {"pkg:pypi/signed@3"}
    assert PackageList.objects.filter(kind="registry", withdrawn_at=None).count() == 2
