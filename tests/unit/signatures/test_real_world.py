"""Real signatures from public projects, where the shared data or the conformance suite is present.

Everything here is verified offline, as `manage.py verify_bundle` does it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from lifecycle.core.types import Digest
from lifecycle.signatures.bundles import parse_bundle
from lifecycle.signatures.cosign import LegacySignature, verify_legacy_keyless
from lifecycle.signatures.dsse import statement_of
from lifecycle.signatures.keyless import verify_keyless
from lifecycle.signatures.roots import parse_trusted_root, shipped_root
from lifecycle.signatures.types import Artifact, SignatureRefused

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "attestations"
SUITE = Path(os.environ.get("SIGSTORE_CONFORMANCE", DATA / "sigstore-conformance"))
_IDENTITY = (
    "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/"
    "extremely-dangerous-oidc-beacon.yml@refs/heads/main"
)
_ISSUER = "https://token.actions.githubusercontent.com"
_CASES = sorted(path for path in SUITE.glob("*") if (path / "bundle.sigstore.json").exists()) if SUITE.exists() else []

needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data/attestations is not there")


@pytest.mark.skipif(not _CASES, reason="no conformance cases: set SIGSTORE_CONFORMANCE to the suite's bundle-verify")
@pytest.mark.parametrize("case", _CASES, ids=lambda path: path.name)
@pytest.mark.parametrize("by", ["file", "digest"])
def test_the_conformance_suite_of_sigstore(case: Path, by: str) -> None:
    artifact = case / "artifact" if (case / "artifact").exists() else SUITE / "a.txt"
    target = str(artifact) if by == "file" else Digest.of(artifact.read_bytes()).text
    arguments = ["--bundle", str(case / "bundle.sigstore.json")]
    if (case / "key.pub").exists():
        arguments += ["--key", str(case / "key.pub")]
    else:
        identity, issuer = case / "identity", case / "issuer"
        arguments += ["--certificate-identity", identity.read_text().strip() if identity.exists() else _IDENTITY]
        arguments += ["--certificate-oidc-issuer", issuer.read_text().strip() if issuer.exists() else _ISSUER]
    if (case / "trusted_root.json").exists():
        arguments += ["--trusted-root", str(case / "trusted_root.json")]
    if case.name.endswith("_fail"):
        with pytest.raises(CommandError, match="Not verified: "):
            call_command("verify_bundle", *arguments, target)
    else:
        call_command("verify_bundle", *arguments, target)


@needs_data
@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("valid", ""),
        ("valid-v0.3", ""),
        ("attestation", ""),
        ("invalid-dsse-sig", "."),
        ("invalid-set", "promise of inclusion"),
        ("mismatch-tlog", "."),
    ],
)
def test_bundles_of_the_slsa_verifier(name: str, refusal: str) -> None:
    bundle = parse_bundle((DATA / "slsa-verifier" / f"bundle__{name}.intoto.sigstore").read_bytes())
    assert bundle.envelope is not None
    statement = statement_of(bundle.envelope)
    assert statement is not None
    artifact = Artifact.of_digest(Digest("sha256:" + statement.subjects[0]["sha256"]))
    if refusal:
        with pytest.raises(SignatureRefused, match=refusal):
            verify_keyless(bundle, shipped_root(), artifact)
        return
    verified = verify_keyless(bundle, shipped_root(), artifact)
    assert verified.signer.issuer == _ISSUER
    with pytest.raises(SignatureRefused, match="other content"):
        verify_keyless(bundle, shipped_root(), Artifact.of(b"other"))


@needs_data
@pytest.mark.parametrize(
    ("name", "is_staging", "identity"),
    [
        ("bundle.txt", True, "a@tny.town"),
        ("bundle_v3.txt", True, "william@yossarian.net"),
        ("Python-3.12.5.tgz", False, "thomas@python.org"),
    ],
)
def test_bundles_of_sigstore_python(name: str, is_staging: bool, identity: str) -> None:
    folder = DATA / "sigstore-python"
    bundle = parse_bundle((folder / f"{name}.sigstore").read_bytes())
    assert bundle.message is not None
    path = folder / name
    artifact = (
        Artifact.of_file(path) if path.exists() else Artifact.of_digest(Digest("sha256:" + bundle.message.digest.hex()))
    )
    assert verify_keyless(bundle, shipped_root(is_staging=is_staging), artifact).signer.identity == identity
    with pytest.raises(SignatureRefused):
        verify_keyless(bundle, shipped_root(is_staging=not is_staging), artifact)


@needs_data
def test_a_bundle_of_an_invalid_version_is_refused() -> None:
    content = (DATA / "sigstore-python" / "bundle_invalid_version.txt.sigstore").read_bytes()
    with pytest.raises(SignatureRefused, match="version is not supported"):
        parse_bundle(content)


@needs_data
def test_an_attestation_of_the_slsa_generator_in_an_image_layout() -> None:
    blobs = DATA / "oci-layout-slsa-v1.4.0" / "container_workflow_dispatch" / "blobs" / "sha256"
    image = Digest((blobs.parents[2] / "container_workflow_dispatch.digest").read_text().strip())
    index = json.loads((blobs.parents[1] / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][1]["digest"].removeprefix("sha256:")).read_text())
    entry = manifest["layers"][0]
    content = (blobs / entry["digest"].removeprefix("sha256:")).read_bytes()
    layer = LegacySignature(content, entry["annotations"], True)
    root = parse_trusted_root((DATA / "sigstore-python" / "trustedroot.v1.json").read_text())
    verified = verify_legacy_keyless(layer, root, image)
    assert verified.statement is not None
    assert verified.statement.predicate_type == "https://slsa.dev/provenance/v0.2"
    with pytest.raises(SignatureRefused, match="other content"):
        verify_legacy_keyless(layer, root, Digest.of(b"other"))
    with pytest.raises(SignatureRefused):
        verify_legacy_keyless(LegacySignature(content + b" ", entry["annotations"], True), root, image)


@needs_data
@pytest.mark.parametrize(
    ("subject", "predicate_type", "reason"),
    [
        ("gce_image_id:8970095005306000053", "https://slsa.dev/verification_summary/v1", ""),
        ("gce_image_id:8970095005306000054", "https://slsa.dev/verification_summary/v1", "other content"),
        ("gce_image_id:8970095005306000053", "https://slsa.dev/provenance/v1", "not a https://slsa.dev/provenance/v1"),
    ],
)
def test_a_verification_summary_with_its_public_key(subject: str, predicate_type: str, reason: str) -> None:
    folder = DATA / "slsa-verifier"
    arguments = ["--envelope", str(folder / "vsa__gce__v1__gke-gce-pre.bcid-vsa.jsonl")]
    arguments += ["--key", str(folder / "vsa__gce__v1__vsa_signing_public_key.pem")]
    arguments += ["--subject", subject, "--predicate-type", predicate_type]
    if not reason:
        call_command("verify_attestation", *arguments)
        return
    with pytest.raises(CommandError, match=reason):
        call_command("verify_attestation", *arguments)
