"""What we attach to promoted images, read by programs that we did not write."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from accounts.models import Role, User
from lifecycle.advisories.models import AffectedInterval
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import Conflict, NotFound, NotPermitted, RegistryUnavailable
from lifecycle.evidence.risk import refresh_risk
from lifecycle.jobs import running
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.oci.scopes import repository_scope
from lifecycle.oci.signing import sign as sign_token
from lifecycle.promotion import services as promotions
from lifecycle.promotion import signing as promotion_signing
from lifecycle.promotion.signing import PROMOTION, sign_target
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry
from lifecycle.signatures.constants import CYCLONEDX, OPENVEX, SIGNATURE_ANNOTATION, VSA
from lifecycle.signatures.keys import load_public_key
from lifecycle.signatures.making import private_pem
from lifecycle.signatures.types import SignatureRefused
from lifecycle.trust import signing
from lifecycle.trust.constants import DOCUMENT_MAX_BYTES
from lifecycle.trust.models import SigningKey
from lifecycle.trust.types import Candidate, Claim
from lifecycle.trust.verifying import judge, read_documents
from lifecycle.versions import version_key
from tests.factories import oci
from tests.factories.dock import advisory, carry, package
from tests.factories.signatures import T0, new_key
from tests.factories.vexing import decision
from tests.fakes.registry import InMemoryRegistry, answer_with

SKOPEO = os.environ.get("SKOPEO", "skopeo")
POLICY = os.environ.get("CONTAINERS_POLICY", "")  # tests/programs/containers_policy, built; it replaces skopeo
NODE_MODULES = os.environ.get("SIGSTORE_NODE_MODULES", "")  # a folder with @sigstore/verify and @sigstore/bundle


def claims_about(promotion: int) -> list[Claim]:
    policy = {"policy": {"uri": f"http://localhost/promotions/{promotion}/"}}
    return [Claim.of(VSA, policy), Claim.of("https://example.com/p", {"promotion": promotion})]


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin", password="dock-side-pass")


def signed(client: Any, repository: str, item: oci.OciImage, key: SigningKey, **more: Any) -> int:
    arguments: dict[str, Any] = {"reference": f"localhost/{repository}", "claims": claims_about(1)} | more
    digest = item.manifest.digest
    return signing.sign_image(client, repository, digest, key=key, alive=lambda: None, **arguments)


def verified(client: Any, repository: str, item: oci.OciImage, pem: str) -> list[tuple[str, str]]:
    """Return (format, predicate type) of what the key signed."""
    candidate = Candidate(1, key=load_public_key(pem))
    documents = read_documents(client, repository, item.manifest, lambda: None)
    found = [judge(document, item.manifest.digest, [candidate], now=T0) for document in documents]
    return sorted((each.document.format, each.predicate_type) for each in found if each.state == "verified")


ALL = [("bundle", ""), ("bundle", "https://example.com/p"), ("bundle", VSA), ("simplesigning", "")]


def test_an_image_is_signed_once_however_often_it_is_asked(admin: User) -> None:
    client, item = InMemoryRegistry(), oci.image("app")
    oci.push(client, "live/shop/api", item, "1")
    key = signing.create_key("release", actor=admin)
    assert signed(client, "live/shop/api", item, key) == 4
    assert signed(client, "live/shop/api", item, key) == 0
    assert verified(client, "live/shop/api", item, key.public_key) == ALL
    assert (
        signed(client, "live/shop/api", item, key, claims=claims_about(2)) == 2
    )  # a second promotion has its own record


def test_a_worker_that_dies_between_any_two_writes_completes_the_rest(admin: User) -> None:
    item = oci.image("app")
    key = signing.create_key("release", actor=admin)
    for number in range(1, 30):
        client = InMemoryRegistry()
        oci.push(client, "live/shop/api", item, "1")
        client.fail_after = client._writes + number
        try:
            signed(client, "live/shop/api", item, key)
        except RegistryUnavailable:
            client.fail_after = None
            signed(client, "live/shop/api", item, key)
        client.fail_after = None
        assert verified(client, "live/shop/api", item, key.public_key) == ALL


def test_a_new_key_signs_and_the_old_one_still_verifies(admin: User) -> None:
    client, item = InMemoryRegistry(), oci.image("app")
    oci.push(client, "live/shop/api", item, "1")
    old = signing.create_key("old", actor=admin)
    signed(client, "live/shop/api", item, old)
    new = signing.create_key("new", actor=admin)
    assert signing.active_keys() == [new, old]
    assert signed(client, "live/shop/api", item, new) == 4
    assert verified(client, "live/shop/api", item, old.public_key) == ALL
    assert verified(client, "live/shop/api", item, new.public_key) == ALL
    signing.retire_key("new", actor=admin, reason="leaked")
    assert signing.active_keys() == [old]
    assert bytes(SigningKey.objects.get(name="new").private_sealed) == b""
    with pytest.raises(Conflict):
        signing.retire_key("new", actor=admin)
    with pytest.raises(NotFound):
        signing.retire_key("unknown", actor=admin)
    actions = list(AuditEvent.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["signing_key.created", "signing_key.created", "signing_key.retired"]


def test_only_an_admin_makes_keys_and_the_private_part_is_sealed(admin: User) -> None:
    with pytest.raises(NotPermitted):
        signing.create_key("mine", actor=User.objects.create(username="kim"))
    row = signing.create_key("release", actor=admin)
    assert b"PRIVATE KEY" not in bytes(row.private_sealed)
    with pytest.raises(Conflict):
        signing.create_key("release", actor=admin)


def test_an_encrypted_key_file_is_imported_with_its_password(admin: User) -> None:
    key = new_key()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"dock"))
    with pytest.raises(SignatureRefused, match="password"):
        signing.create_key("release", actor=admin, pem=pem, password="wrong")
    other = new_key("P-384").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"dock"))
    with pytest.raises(SignatureRefused, match="P-256"):
        signing.create_key("release", actor=admin, pem=other, password="dock")
    signing.create_key("release", actor=admin, pem=pem, password="dock")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_the_signature_in_the_tag(admin: User, tmp_path: Path) -> None:
    client, item = InMemoryRegistry(), oci.image("app")
    oci.push(client, "live/shop/api", item, "1")
    keys = [signing.create_key(name, actor=admin) for name in ("release", "other")]
    signed(client, "live/shop/api", item, keys[0])
    tag = f"sha256-{item.manifest.digest.encoded}.sig"
    (layer,) = json.loads(client.get_manifest("live/shop/api", tag).content)["layers"]
    (tmp_path / "payload").write_bytes(client.blobs["live/shop/api"][layer["digest"]])
    (tmp_path / "signature").write_bytes(base64.b64decode(layer["annotations"][SIGNATURE_ANNOTATION]))
    for key, code in zip(keys, (0, 1), strict=True):
        (tmp_path / "key.pub").write_text(key.public_key)
        command = ["openssl", "dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", "payload"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == code


_NODE = """
const {bundleFromJSON} = require('@sigstore/bundle');
const {toSignedEntity, toTrustMaterial, Verifier} = require('@sigstore/verify');
const fs = require('fs'), crypto = require('crypto');
const key = crypto.createPublicKey(fs.readFileSync('key.pub'));
const root = {mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
  tlogs: [], ctlogs: [], certificateAuthorities: [], timestampAuthorities: []};
const trust = toTrustMaterial(root, () => ({publicKey: key, validFor: () => true}));
const verifier = new Verifier(trust, {tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0});
verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(fs.readFileSync('bundle.json')))));
"""


@pytest.mark.skipif(not NODE_MODULES, reason="SIGSTORE_NODE_MODULES names no folder with npm's @sigstore/verify")
def test_the_sigstore_library_of_npm_verifies_our_bundles(admin: User, tmp_path: Path) -> None:
    client, item = InMemoryRegistry(), oci.image("app")
    oci.push(client, "live/shop/api", item, "1")
    keys = [signing.create_key(name, actor=admin) for name in ("release", "other")]
    signed(client, "live/shop/api", item, keys[0])
    documents = read_documents(client, "live/shop/api", item.manifest, lambda: None)
    bundles = [document.content for document in documents if document.format == "bundle"]
    assert len(bundles) == 3
    for bundle in bundles:
        (tmp_path / "bundle.json").write_bytes(bundle)
        for key, is_good in zip(keys, (True, False), strict=True):
            (tmp_path / "key.pub").write_text(key.public_key)
            command = ["node", "-e", _NODE]
            environment = os.environ | {"NODE_PATH": NODE_MODULES}
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=60)
            assert (done.returncode == 0) is is_good, done.stderr


@pytest.mark.skipif(shutil.which(POLICY or SKOPEO) is None, reason="skopeo is not installed")
def test_a_policy_of_containers_accepts_our_signature_and_no_other(
    services: Any, admin: User, transactional_db: None, settings: Any, tmp_path: Path
) -> None:
    services.need_registry()
    settings.REGISTRY_URL = services.registry.url
    registry = Registry.objects.create(name="managed", endpoint=services.registry.url, is_managed=True)
    client, item = client_for(registry), oci.image("app")
    oci.push(client, "live/shop/api", item, "1")
    place = f"{registry.host}/live/shop/api"
    ours, other = signing.create_key("release", actor=admin), signing.create_key("other", actor=admin)
    policy, folder = tmp_path / "policy.json", tmp_path / "registries.d"
    folder.mkdir()
    (folder / "default.yaml").write_text(f"docker:\n  {registry.host}:\n    use-sigstore-attachments: true\n")

    def pull(key: SigningKey) -> subprocess.CompletedProcess[str]:
        (tmp_path / "key.pub").write_text(key.public_key)
        identity = {"type": "matchRepository"}
        rule = {"type": "sigstoreSigned", "keyPath": str(tmp_path / "key.pub"), "signedIdentity": identity}
        rules = {"default": [{"type": "reject"}], "transports": {"docker": {registry.host: [rule]}}}
        policy.write_text(json.dumps(rules))
        token = sign_token("admin", [repository_scope("live/shop/api", "pull")]).text
        target = tmp_path / "pulled"
        command: list[str | Path] = [POLICY, policy, folder, token, f"{place}:1", target]
        if not POLICY:
            command = [
                SKOPEO, "--policy", policy, "--registries.d", folder, "copy", "--src-tls-verify=false",
                f"--src-registry-token={token}", f"docker://{place}:1", f"dir:{target}",
            ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    unsigned = pull(ours)
    assert unsigned.returncode != 0
    signed(client, "live/shop/api", item, ours, reference=place)
    accepted = pull(ours)
    if "sigstore disabled" in accepted.stderr:
        pytest.skip("Debian builds this skopeo without sigstore. SKOPEO names another one, or CONTAINERS_POLICY.")
    assert accepted.returncode == 0, accepted.stderr
    assert "signature" in unsigned.stderr
    refused = pull(other)
    assert refused.returncode != 0
    assert "signature" in refused.stderr


@pytest.fixture
def promoted(dock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[[], SimpleNamespace]:
    """Return a function that promotes the dock's image into dev, in an in-memory registry."""
    client, item = InMemoryRegistry(), oci.image("base", "app")
    carry(dock.image, 0, package("openssl", "3.0.11-1"))
    Image.objects.filter(pk=dock.image.pk).update(
        digest=item.manifest.digest.text, manifest=item.manifest.content, config=item.config
    )
    oci.push(client, "shop/api", item, "1.0")
    answer_with(client, monkeypatch)

    def promote() -> SimpleNamespace:
        digest = item.manifest.digest.text
        request = promotions.request_promotion(
            dock.repository, digest, dock.dev, actor=dock.requester, reason="release"
        )
        promotions.execute(request.pk, actor=dock.deployer)
        job = Job.objects.get(kind="promote")
        running.run(job.pk)
        job.refresh_from_db()
        request.refresh_from_db()
        log = "\n".join(JobLogLine.objects.filter(job=job).order_by("id").values_list("text", flat=True))
        return SimpleNamespace(request=request, job=job, log=log, client=client, item=item)

    return promote


def test_a_promotion_without_a_key_signs_nothing_and_says_so(promoted: Callable[[], SimpleNamespace]) -> None:
    done = promoted()
    assert done.request.state == "succeeded", done.job.last_error
    assert "Not signed: there is no signing key." in done.log
    assert read_documents(done.client, "dev/shop/api", done.item.manifest, lambda: None) == []


def test_a_promotion_attaches_who_asked_and_what_was_judged(
    promoted: Callable[[], SimpleNamespace], admin: User
) -> None:
    key = signing.create_key("release", actor=admin)
    done = promoted()
    assert done.request.state == "succeeded", done.job.last_error
    assert "Signed with release: 5 new objects." in done.log
    candidate = Candidate(1, key=load_public_key(key.public_key))
    documents = read_documents(done.client, "dev/shop/api", done.item.manifest, lambda: None)
    found = [judge(document, done.item.manifest.digest, [candidate], now=T0) for document in documents]
    predicates = {each.predicate_type: each.predicate for each in found if each.predicate_type}
    record, summary = predicates[PROMOTION], predicates[VSA]
    assert (record["promotion"], record["requestedBy"], record["environment"], record["reason"]) == (
        done.request.pk,
        "requester",
        "dev",
        "release",
    )
    assert summary["verificationResult"] == "PASSED"
    assert summary["resourceUri"] == f"localhost:1/dev/shop/api@{done.item.manifest.digest}"
    assert not any(level.startswith("SLSA_") for level in summary["verifiedLevels"])
    evaluation = done.request.evaluations.order_by("-pk").first()
    assert record["evaluation"] == evaluation.digest
    bom = predicates[CYCLONEDX]
    assert record["sbom"] == bom["serialNumber"]
    assert [(component["name"], component["version"]) for component in bom["components"]] == [("openssl", "3.0.11-1")]
    assert bom["metadata"]["component"]["version"] == done.item.manifest.digest.text


def test_the_sbom_is_attested_again_only_when_the_packages_changed(
    promoted: Callable[[], SimpleNamespace], dock: SimpleNamespace, admin: User
) -> None:
    signing.create_key("release", actor=admin)

    def attached() -> int:
        documents = read_documents(done.client, "dev/shop/api", done.item.manifest, lambda: None)
        return sum(judge(each, done.item.manifest.digest, [], now=T0).predicate_type == CYCLONEDX for each in documents)

    done = promoted()
    assert attached() == 1
    done.request.image.refresh_from_db()
    assert sign_target(done.client, done.request, "dev/shop/api", alive=lambda: None) == "Already signed with release."
    carry(dock.image, 1, package("zlib1g", "1.2.13-1"))
    sign_target(done.client, done.request, "dev/shop/api", alive=lambda: None)
    assert attached() == 2


def affected_by(name: str, image: Image) -> None:
    """Let an advisory affect the package of the image, as a feed would."""
    openssl = package("openssl", "3.0.11-1")
    openssl.version_key = version_key(openssl.scheme, openssl.match_version)
    openssl.save(update_fields=["version_key"])
    AffectedInterval.objects.create(
        advisory=advisory(name, "high", openssl), ecosystem=openssl.ecosystem, release=openssl.release,
        name=openssl.match_name, scheme=openssl.scheme,
    )  # fmt: skip
    refresh_risk([image.pk])


def test_decisions_about_findings_are_attested_without_reasons_once_for_each_change(
    promoted: Callable[[], SimpleNamespace], dock: SimpleNamespace, admin: User
) -> None:
    key = signing.create_key("release", actor=admin)
    affected_by("CVE-2026-1", dock.image)
    security = User.objects.create(username="sue")
    RoleGrant.objects.create(user=security, team=dock.team, role=Role.objects.get(slug="security"))
    about = {"scope": "digest", "digest": Image.objects.get(pk=dock.image.pk).digest, "reason": "internal words"}
    decision(dock.repository, by=dock.owner, approver=security, **about)
    done = promoted()
    candidate = Candidate(1, key=load_public_key(key.public_key))

    def attached(kind: str) -> list[Any]:
        documents = read_documents(done.client, "dev/shop/api", done.item.manifest, lambda: None)
        found = [judge(each, done.item.manifest.digest, [candidate], now=T0) for each in documents]
        return [each.predicate for each in found if each.predicate_type == kind]

    (vex,), (record,) = attached(OPENVEX), attached(PROMOTION)
    (said,) = vex["statements"]
    assert (said["vulnerability"]["name"], said["status"], said["justification"]) == (
        "CVE-2026-1", "not_affected", "component_not_present",
    )  # fmt: skip
    assert said["products"][0]["hashes"] == {"sha-256": done.item.manifest.digest.encoded}
    assert "internal words" not in str(vex)
    assert "sue" not in str(vex)
    assert record["vex"] == vex["@id"]
    refresh_risk([dock.image.pk])  # counted again, and nothing is new
    assert sign_target(done.client, done.request, "dev/shop/api", alive=lambda: None) == "Already signed with release."
    affected_by("CVE-2026-2", dock.image)
    decision(dock.repository, by=dock.owner, approver=security, vulnerability="CVE-2026-2", **about)
    sign_target(done.client, done.request, "dev/shop/api", alive=lambda: None)
    assert sorted(len(each["statements"]) for each in attached(OPENVEX)) == [1, 2]


def test_an_sbom_that_is_unknown_or_too_large_is_left_out_and_the_log_says_why(
    promoted: Callable[[], SimpleNamespace], dock: SimpleNamespace, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signing.create_key("release", actor=admin)
    with monkeypatch.context() as patch:
        patch.setattr(promotion_signing, "SIGNED_MAX_BYTES", 300)
        done = promoted()
    assert "Signed with release: 4 new objects. Without an SBOM. It is larger than" in done.log
    assert [kind for _, kind in verified(done.client, "dev/shop/api", done.item, key.public_key)] == [
        "", PROMOTION, VSA, "",
    ]  # fmt: skip
    Image.objects.filter(pk=dock.image.pk).update(scanned_at=None)
    done.request.image.refresh_from_db()
    words = sign_target(done.client, done.request, "dev/shop/api", alive=lambda: None)
    assert words.startswith("Already signed with release. Without an SBOM. The packages of sha256:")
    done.request.image.kind = Image.Kind.ARTIFACT  # a chart
    words = sign_target(done.client, done.request, "dev/shop/api", alive=lambda: None)
    assert words.startswith("Already signed with release. Without an SBOM. Only container images")


def test_what_is_too_large_to_read_is_refused_with_the_reason(admin: User) -> None:
    client, item = InMemoryRegistry(), oci.image("app")
    oci.push(client, "live/shop/api", item, "1")
    key = signing.create_key("release", actor=admin)
    large = Claim(CYCLONEDX, b'{"serialNumber":"urn:uuid:1","text":"%b"}' % (b"x" * DOCUMENT_MAX_BYTES), "urn:uuid:1")
    assert signed(client, "live/shop/api", item, key, claims=[large]) == 3
    assert signed(client, "live/shop/api", item, key, claims=[large]) == 0  # what we signed we read in full
    documents = read_documents(client, "live/shop/api", item.manifest, lambda: None)
    found = {judge(document, item.manifest.digest, [], now=T0).reason for document in documents if document.problem}
    assert len(found) == 1
    assert "larger" in found.pop()


def test_a_registry_that_fails_while_signing_does_not_let_the_promotion_succeed(
    promoted: Callable[[], SimpleNamespace], admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing.create_key("release", actor=admin)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RegistryUnavailable("The registry died here.")

    with monkeypatch.context() as patch:
        patch.setattr(signing, "attach_referrer", fail)
        done = promoted()
    assert (done.request.state, done.job.state) == ("verifying", "waiting")
    Job.objects.filter(pk=done.job.pk).update(not_before=None)
    running.run(done.job.pk)
    done.request.refresh_from_db()
    assert done.request.state == "succeeded"
    assert verified(done.client, "dev/shop/api", done.item, SigningKey.objects.get().public_key) == [
        ("bundle", ""), ("bundle", CYCLONEDX), ("bundle", PROMOTION), ("bundle", VSA), ("simplesigning", ""),
    ]  # fmt: skip


def test_a_key_that_an_operator_must_fix_makes_the_request_ready_again(
    promoted: Callable[[], SimpleNamespace], admin: User, settings: Any
) -> None:
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_RELEASE": private_pem(new_key())}
    signing.register_key("release", "env:", actor=admin)
    settings.SIGNING_KEY_VALUES = {}
    done = promoted()
    assert (done.request.state, done.job.state, done.job.error_code) == ("ready", "failed", "signer_refused")
    assert "SIGNING_KEY_RELEASE is not set" in done.request.failure
