"""Keyless signatures by a sigstore instance of our own: what must verify, and each single thing that must fail."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from lifecycle.core.types import Digest
from lifecycle.signatures.bundles import parse_bundle
from lifecycle.signatures.constants import (
    CERTIFICATE_ANNOTATION,
    LOG_ANNOTATION,
    SIGNATURE_ANNOTATION,
)
from lifecycle.signatures.cosign import LegacySignature, verify_legacy_keyless
from lifecycle.signatures.keyless import verify_keyless
from lifecycle.signatures.logs import Proof, root_from_proof
from lifecycle.signatures.roots import parse_trusted_root, shipped_root
from lifecycle.signatures.types import Artifact, SignatureRefused, Verified
from tests.factories.signatures import IDENTITY, ISSUER, T0, Sigstore, b64, new_key, sign, simple_signing

IMAGE = Digest.of(b"image")


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


def verify(sigstore: Sigstore, bundle: dict[str, Any], content: bytes = b"content", **period: str) -> Verified:
    root = parse_trusted_root(sigstore.trusted_root(**period))
    return verify_keyless(parse_bundle(json.dumps(bundle).encode()), root, Artifact.of(content))


def test_a_bundle_with_a_promise_verifies_and_names_who_and_when(sigstore: Sigstore) -> None:
    verified = verify(sigstore, sigstore.bundle(b"content"))
    assert (verified.signer.identity, verified.signer.issuer) == (IDENTITY, ISSUER)
    assert verified.signed_at == T0 + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"at": T0 + timedelta(minutes=11)}, "not valid at"),
        ({"at": T0 - timedelta(minutes=1)}, "not valid at"),
        ({"with_sct": False}, "transparency"),
    ],
)
def test_certificates_out_of_time_or_out_of_public_view_are_refused(
    sigstore: Sigstore, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SignatureRefused, match=reason):
        verify(sigstore, sigstore.bundle(b"content", **arguments))


def test_another_instance_is_not_trusted(sigstore: Sigstore) -> None:
    with pytest.raises(SignatureRefused, match="not trusted"):
        verify(sigstore, Sigstore().bundle(b"content"))
    mixed = Sigstore(log_key=sigstore.log_key)
    with pytest.raises(SignatureRefused, match="not from a trusted authority"):
        verify(sigstore, mixed.bundle(b"content"))
    unlogged = Sigstore(log_key=sigstore.log_key, ca_key=sigstore.ca_key)
    unlogged.ca = sigstore.ca
    with pytest.raises(SignatureRefused, match="transparency log of the signer's certificate"):
        verify(sigstore, unlogged.bundle(b"content"))


def test_the_root_counts_only_in_its_period(sigstore: Sigstore) -> None:
    before = {"start": (T0 - timedelta(days=9)).isoformat(), "end": (T0 - timedelta(days=1)).isoformat()}
    with pytest.raises(SignatureRefused, match="not trusted at the time"):
        verify(sigstore, sigstore.bundle(b"content"), **before)
    until = {"start": before["start"], "end": (T0 + timedelta(minutes=1)).isoformat()}  # the end is inclusive
    verify(sigstore, sigstore.bundle(b"content"), **until)


def test_changed_parts_are_refused(sigstore: Sigstore) -> None:
    bundle, other = sigstore.bundle(b"content"), sigstore.bundle(b"content")
    other_content = sigstore.bundle(b"other content")
    entry = bundle["verificationMaterial"]["tlogEntries"][0]

    def with_entry(**changes: Any) -> dict[str, Any]:
        material = bundle["verificationMaterial"] | {"tlogEntries": [entry | changes]}
        return bundle | {"verificationMaterial": material}

    changed = [
        bundle | {"messageSignature": other["messageSignature"]},
        bundle | {"verificationMaterial": other["verificationMaterial"]},
        bundle | {"verificationMaterial": other_content["verificationMaterial"]},
        bundle | {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2"},  # needs a proof
        with_entry(integratedTime=str(int(entry["integratedTime"]) + 1)),
        with_entry(logIndex="8"),
        with_entry(inclusionPromise={"signedEntryTimestamp": b64(sign(new_key(), b"x"))}),
        with_entry(inclusionPromise=None),
        with_entry(canonicalizedBody=other_content["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"]),
        with_entry(kindVersion={"kind": "intoto", "version": "0.0.2"}),
        bundle | {"verificationMaterial": bundle["verificationMaterial"] | {"tlogEntries": []}},
    ]
    verify(sigstore, bundle)
    for value in changed:
        with pytest.raises(SignatureRefused):
            verify(sigstore, value)
    with pytest.raises(SignatureRefused):
        verify(sigstore, bundle, content=b"other content")


def legacy(sigstore: Sigstore, digest: Digest, *, logged: bytes | None = None) -> LegacySignature:
    key = new_key()
    leaf, payload = sigstore.leaf(key), simple_signing(digest.text)
    signature = sign(key, payload)
    body = sigstore.body(leaf, signature, hashlib.sha256(payload if logged is None else logged).digest())
    annotations = {
        SIGNATURE_ANNOTATION: b64(signature),
        CERTIFICATE_ANNOTATION: leaf.public_bytes(Encoding.PEM).decode(),
        LOG_ANNOTATION: sigstore.annotation(body),
    }
    return LegacySignature(payload, annotations, False)


def test_cosigns_annotations_verify_for_their_image_only(sigstore: Sigstore) -> None:
    root = parse_trusted_root(sigstore.trusted_root())
    layer = legacy(sigstore, IMAGE)
    assert verify_legacy_keyless(layer, root, IMAGE).signer.identity == IDENTITY
    with pytest.raises(SignatureRefused, match="another image"):
        verify_legacy_keyless(layer, root, Digest.of(b"other"))
    with pytest.raises(SignatureRefused, match="other content"):
        verify_legacy_keyless(legacy(sigstore, IMAGE, logged=b"x"), root, IMAGE)
    for name in layer.annotations:
        rest = {key: value for key, value in layer.annotations.items() if key != name}
        with pytest.raises(SignatureRefused):
            verify_legacy_keyless(LegacySignature(layer.content, rest, False), root, IMAGE)


def test_the_shipped_root_is_the_public_instance() -> None:
    assert len(shipped_root().logs) >= 1
    assert shipped_root().fingerprint != shipped_root(is_staging=True).fingerprint


def test_inclusion_proofs_lead_to_the_root_for_every_leaf_of_small_trees() -> None:
    def root_of(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return hashlib.sha256(b"\0" + leaves[0]).digest()
        half = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])).digest()

    def path_of(index: int, leaves: list[bytes]) -> list[bytes]:
        if len(leaves) == 1:
            return []
        half = 1 << (len(leaves) - 1).bit_length() - 1
        if index < half:
            return [*path_of(index, leaves[:half]), root_of(leaves[half:])]
        return [*path_of(index - half, leaves[half:]), root_of(leaves[:half])]

    for size in range(1, 18):
        leaves = [b"%d" % number for number in range(size)]
        for index, leaf in enumerate(leaves):
            proof = Proof(index, size, root_of(leaves), tuple(path_of(index, leaves)), "")
            assert root_from_proof(leaf, proof) == proof.root_hash
            assert root_from_proof(leaf + b"x", proof) != proof.root_hash
            longer = Proof(index, size, b"", (*proof.hashes, b"x" * 32), "")
            with pytest.raises(SignatureRefused):
                root_from_proof(leaf, longer)
