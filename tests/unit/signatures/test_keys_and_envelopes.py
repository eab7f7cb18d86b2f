"""Signatures by keys: every kind of key, envelopes, bundles and simple signing; and everything that must fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest
from lifecycle.signatures.bundles import parse_bundle, verify_with_key
from lifecycle.signatures.constants import SIGNATURE_ANNOTATION
from lifecycle.signatures.cosign import LegacySignature, verify_legacy_with_key
from lifecycle.signatures.dsse import check_statement, pae, parse_envelope, verify_envelope
from lifecycle.signatures.keys import load_public_key
from lifecycle.signatures.types import Artifact, IdentityRule, SignatureRefused, Signer, compile_pattern
from tests.factories.signatures import b64, envelope, key_bundle, new_key, pem_of, sign, simple_signing, statement

IMAGE = Digest.of(b"image")
KINDS = ("P-256", "P-384", "P-521", "RSA 2048", "Ed25519")


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_pae_is_the_encoding_of_the_specification() -> None:
    assert pae("application/vnd.in-toto+json", b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key_verifies_its_envelope_and_no_other(kind: str) -> None:
    key, other = new_key(kind), new_key(kind)
    parsed = parse_envelope(dumps(envelope(key, statement(IMAGE.text))))
    verified = verify_envelope(parsed, load_public_key(pem_of(key)))
    assert verified.signer.key_fingerprint == load_public_key(pem_of(key)).fingerprint
    assert check_statement(verified.statement, IMAGE.text).predicate_type == "https://example.com/p/v1"
    with pytest.raises(SignatureRefused, match="does not match"):
        verify_envelope(parsed, load_public_key(pem_of(other)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key_verifies_a_bundle_over_a_file(kind: str) -> None:
    key = new_key(kind)
    value = key_bundle(key, content=b"content")
    if kind in {"P-384", "P-521"}:
        del value["messageSignature"]["messageDigest"]  # it names SHA-256; these keys sign with their own hash
    bundle = parse_bundle(dumps(value))
    assert verify_with_key(bundle, load_public_key(pem_of(key)), Artifact.of(b"content")).statement is None
    with pytest.raises(SignatureRefused):
        verify_with_key(bundle, load_public_key(pem_of(key)), Artifact.of(b"other content"))


def test_a_digest_is_enough_for_ecdsa_but_not_for_ed25519() -> None:
    for kind, is_enough in (("P-256", True), ("Ed25519", False)):
        key = new_key(kind)
        bundle = parse_bundle(dumps(key_bundle(key, content=b"content")))
        artifact = Artifact.of_digest(Digest.of(b"content"))
        if is_enough:
            verify_with_key(bundle, load_public_key(pem_of(key)), artifact)
        else:
            with pytest.raises(SignatureRefused, match="digest is not enough"):
                verify_with_key(bundle, load_public_key(pem_of(key)), artifact)


def test_two_numbers_side_by_side_are_an_ecdsa_signature_too() -> None:
    key = new_key()
    r, s = decode_dss_signature(sign(key, b"message"))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    load_public_key(pem_of(key)).check(raw, b"message")
    with pytest.raises(SignatureRefused):
        load_public_key(pem_of(key)).check(raw, b"massage")


def test_a_statement_counts_only_for_its_subject_and_its_predicate_type() -> None:
    key = new_key()
    verified = verify_envelope(
        parse_envelope(dumps(envelope(key, statement(IMAGE.text)))), load_public_key(pem_of(key))
    )
    check_statement(verified.statement, IMAGE.text, "https://example.com/p/v1")
    with pytest.raises(SignatureRefused, match="other content"):
        check_statement(verified.statement, Digest.of(b"other").text, "https://example.com/p/v1")
    with pytest.raises(SignatureRefused, match=r"not a https://slsa\.dev"):
        check_statement(verified.statement, IMAGE.text, "https://slsa.dev/provenance/v1")
    foreign = verify_envelope(parse_envelope(dumps(envelope(key, b"{}", "text/plain"))), load_public_key(pem_of(key)))
    with pytest.raises(SignatureRefused, match=r"not application/vnd\.in-toto"):
        check_statement(foreign.statement, IMAGE.text)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"x"}', "no subject"),
        (b'{"_type":"https://example.com","subject":[{"digest":{}}],"predicateType":"x"}', "no in-toto statement"),
        (b'{"_type":"a","_type":"https://in-toto.io/Statement/v1"}', "twice"),
        (b'{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x"}],"predicateType":"x"}', "no digest"),
        (b"[" * 2000, "not valid JSON"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "nested"),
    ],
)
def test_odd_statements_are_refused_although_they_are_signed(payload: bytes, reason: str) -> None:
    key = new_key()
    with pytest.raises(SignatureRefused, match=reason):
        verify_envelope(parse_envelope(dumps(envelope(key, payload))), load_public_key(pem_of(key)))


def test_unknown_fields_of_envelope_and_bundle_are_refused() -> None:
    key = new_key()
    bundle = key_bundle(key, payload=statement(IMAGE.text))
    verify_with_key(parse_bundle(dumps(bundle)), load_public_key(pem_of(key)), Artifact.of_digest(IMAGE))
    for change in (
        lambda value: value.update(extra=1),
        lambda value: value["verificationMaterial"].update(extra=1),
        lambda value: value["dsseEnvelope"].update(extra=1),
        lambda value: value["dsseEnvelope"]["signatures"][0].update(extra=1),
        lambda value: value["verificationMaterial"].update(certificate={"rawBytes": "AA=="}),
        lambda value: value["dsseEnvelope"]["signatures"].append(value["dsseEnvelope"]["signatures"][0]),
        lambda value: value.update(messageSignature={"signature": "AA=="}),
        lambda value: value.update(mediaType="application/vnd.dev.sigstore.bundle.v9+json"),
    ):
        changed = json.loads(dumps(bundle))
        change(changed)
        with pytest.raises(SignatureRefused):
            parse_bundle(dumps(changed))


def test_a_log_entry_about_something_else_spoils_a_bundle_by_a_key() -> None:
    key = new_key()
    value = key_bundle(key, content=b"content")
    named = b64(pem_of(key).encode())
    body = {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
        "data": {"hash": {"algorithm": "sha256", "value": Digest.of(b"content").encoded}},
        "signature": {"content": value["messageSignature"]["signature"], "publicKey": {"content": named}},
    }}  # fmt: skip
    entry = {"logIndex": "1", "logId": {"keyId": "AAAA"}, "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"}}
    entry["canonicalizedBody"] = b64(dumps(body))
    value["verificationMaterial"]["tlogEntries"] = [entry]
    verify_with_key(parse_bundle(dumps(value)), load_public_key(pem_of(key)), Artifact.of(b"content"))
    body["spec"]["data"]["hash"]["value"] = Digest.of(b"other").encoded  # type: ignore[index]  # a literal above
    entry["canonicalizedBody"] = b64(dumps(body))
    with pytest.raises(SignatureRefused, match="other content"):
        verify_with_key(parse_bundle(dumps(value)), load_public_key(pem_of(key)), Artifact.of(b"content"))


@pytest.mark.parametrize("kind", KINDS)
def test_simple_signing_is_bound_to_the_image(kind: str) -> None:
    key = new_key(kind)
    payload = simple_signing(IMAGE.text)
    layer = LegacySignature(payload, {SIGNATURE_ANNOTATION: b64(sign(key, payload))}, False)
    verified = verify_legacy_with_key(layer, load_public_key(pem_of(key)), IMAGE)
    assert verified.annotations == {"env": "prod"}
    with pytest.raises(SignatureRefused, match="another image"):
        verify_legacy_with_key(layer, load_public_key(pem_of(key)), Digest.of(b"other"))
    with pytest.raises(SignatureRefused, match="does not match"):
        verify_legacy_with_key(layer, load_public_key(pem_of(new_key(kind))), IMAGE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"type": "atomic container signature"}, "no cosign"), ({"expires": "never"}, "unknown critical field")],
)
def test_simple_signing_with_other_critical_fields_is_refused(changes: dict[str, Any], reason: str) -> None:
    key = new_key()
    payload = simple_signing(IMAGE.text, **changes)
    layer = LegacySignature(payload, {SIGNATURE_ANNOTATION: b64(sign(key, payload))}, False)
    with pytest.raises(SignatureRefused, match=reason):
        verify_legacy_with_key(layer, load_public_key(pem_of(key)), IMAGE)


def test_keys_that_are_weak_or_private_are_refused() -> None:
    load_public_key(pem_of(new_key("RSA 2048")))
    with pytest.raises(SignatureRefused, match="2048 bits"):
        load_public_key(pem_of(new_key("RSA 1024")))
    with pytest.raises(SignatureRefused, match="private key"):
        load_public_key("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(SignatureRefused, match="PEM"):
        load_public_key("ssh-ed25519 AAAA")


@pytest.mark.parametrize(
    ("pattern", "identity", "matches"),
    [
        ("https://ci.example/shop/*@refs/tags/*", "https://ci.example/shop/api@refs/tags/v1", True),
        ("https://ci.example/shop/*@refs/tags/*", "https://ci.example/shop/api/x@refs/tags/v1", False),
        (
            "https://ci.example/shop/*@refs/tags/*",
            "https://evil.example/?https://ci.example/shop/api@refs/tags/v1",
            False,
        ),
        ("https://ci.example/shop/*@refs/tags/*", "https://ci.example/shop/api@refs/tags/v1\nx", False),
        ("https://ci.example/**", "https://ci.example/shop/api/x@refs/tags/v1", True),
        ("https://ciXexample/*", "https://ci.example/a", False),
        ("https://ci.example/*", "https://ciXexample/a", False),
        ("*@example.com", "a@example.com", True),
        ("*@example.com", "a@evil.com@example.com", False),
    ],
)
def test_patterns_match_whole_identities(pattern: str, identity: str, matches: bool) -> None:
    rule = IdentityRule("https://issuer.example", pattern, is_pattern=True)
    assert rule.matches(Signer(identity=identity, issuer="https://issuer.example")) is matches
    assert not rule.matches(Signer(identity=identity, issuer="https://issuer.example.evil"))


@pytest.mark.parametrize("text", ["", " ", "a" * 501, "*a*b*c*d*e*"])
def test_patterns_have_limits(text: str) -> None:
    with pytest.raises(Malformed):
        compile_pattern(text)
