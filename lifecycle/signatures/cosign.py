"""Cosign's forms before bundles: simple signing in `.sig` tags, and envelopes in `.att` tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, load_pem_x509_certificate

from lifecycle.core.types import Digest
from lifecycle.signatures.certificates import check_leaf, identity_of
from lifecycle.signatures.constants import (
    CERTIFICATE_ANNOTATION,
    LOG_ANNOTATION,
    SIGNATURE_ANNOTATION,
    TIMESTAMP_ANNOTATION,
)
from lifecycle.signatures.dsse import Envelope, check_statement, parse_envelope, statement_of, verify_envelope
from lifecycle.signatures.keyless import verify_material
from lifecycle.signatures.keys import VerifyingKey, verifying_key
from lifecycle.signatures.logs import check_body, read_annotation
from lifecycle.signatures.reading import decode_base64, get_bytes, get_object, json_object
from lifecycle.signatures.roots import TrustedRoot
from lifecycle.signatures.types import Artifact, SignatureRefused, Signer, Verified

_PAYLOAD_MAX: Final = 1024 * 1024
_TYPE: Final = "cosign container image signature"
_CRITICAL: Final = frozenset({"identity", "image", "type"})
_OPTIONAL_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class LegacySignature:
    """One layer of a `.sig` or `.att` manifest: its content and its annotations. Nothing is verified yet."""

    content: bytes  # a simple signing payload, or an envelope
    annotations: Mapping[str, str]
    is_attestation: bool

    @property
    def has_certificate(self) -> bool:
        return bool(self.annotations.get(CERTIFICATE_ANNOTATION))


def verify_legacy_with_key(layer: LegacySignature, key: VerifyingKey, digest: Digest) -> Verified:
    """Return what `key` signed about the image `digest`; raises SignatureRefused."""
    if layer.is_attestation:
        verified = verify_envelope(parse_envelope(layer.content), key)
        check_statement(verified.statement, digest.text)
        return verified
    key.check(_signature_of(layer), layer.content)
    return _payload(layer.content, digest, Signer(key_fingerprint=key.fingerprint))


def verify_legacy_keyless(layer: LegacySignature, root: TrustedRoot, digest: Digest) -> Verified:
    """Return what a keyless signer says about the image `digest`; raises SignatureRefused.

    The annotations hold the certificate, the log's promise, and perhaps a time stamp. Their chain is not used: only
    authorities of `root` count.
    """
    certificate = _certificate_of(layer)
    entry = read_annotation(_annotation(layer, LOG_ANNOTATION, "log entry"))
    key = verifying_key(certificate.public_key())
    envelope: Envelope | None = None
    if layer.is_attestation:
        envelope = parse_envelope(layer.content)
        if len(envelope.signatures) != 1:
            raise SignatureRefused("The envelope must have exactly one signature.")
        signature, signed = envelope.signatures[0], envelope.signed
    else:
        signature, signed = _signature_of(layer), layer.content
    key.check(signature, signed)
    signed_at = verify_material(
        certificate, entry, root, timestamps=_timestamps(layer), signature=signature, needs_proof=False
    )
    check_body(
        entry,
        verifiers=(certificate.public_bytes(Encoding.DER),),
        envelope=envelope,
        signature=signature,
        artifact=Artifact.of(layer.content),
        raw_envelope=layer.content if envelope is not None else b"",
    )
    signer = identity_of(certificate)
    if envelope is None:
        payload = _payload(layer.content, digest, signer)
        return Verified(signer, signed_at, None, payload.payload, payload.annotations)
    statement = check_statement(statement_of(envelope), digest.text)
    return Verified(signer, signed_at, statement, envelope.payload)


def _payload(content: bytes, digest: Digest, signer: Signer) -> Verified:
    """Return the verified payload, if it is about the image `digest`. The named repository is advice, as in cosign."""
    value = json_object(content, "signed payload", max_bytes=_PAYLOAD_MAX)
    critical = get_object(value, "critical", "The signed payload")
    if critical.get("type") != _TYPE:
        raise SignatureRefused("The signed payload is no cosign container image signature.")
    unknown = sorted(set(critical) - _CRITICAL)
    if unknown:
        raise SignatureRefused(f"The signed payload has the unknown critical field {unknown[0][:60]!r}.")
    if get_object(critical, "image", "The signed payload").get("docker-manifest-digest") != digest.text:
        raise SignatureRefused("The signature is about another image.")
    return Verified(signer, payload=content, annotations=_annotations(value.get("optional")))


def _annotations(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    simple = {key[:100]: entry[:500] for key, entry in value.items() if isinstance(entry, str)}
    return dict(list(simple.items())[:_OPTIONAL_MAX])


def _annotation(layer: LegacySignature, name: str, what: str) -> str:
    text = layer.annotations.get(name, "")
    if not text:
        raise SignatureRefused(f"The signature has no {what}.")
    return text


def _signature_of(layer: LegacySignature) -> bytes:
    return decode_base64(_annotation(layer, SIGNATURE_ANNOTATION, "signature annotation"), "the signature annotation")


def _certificate_of(layer: LegacySignature) -> Certificate:
    try:
        certificate = load_pem_x509_certificate(_annotation(layer, CERTIFICATE_ANNOTATION, "certificate").encode())
    except ValueError as error:
        raise SignatureRefused("The signer's certificate cannot be read.") from error
    check_leaf(certificate)
    return certificate


def _timestamps(layer: LegacySignature) -> Sequence[bytes]:
    text = layer.annotations.get(TIMESTAMP_ANNOTATION, "")
    if not text:
        return ()
    value = json_object(text.encode(), "time stamp annotation", max_bytes=_PAYLOAD_MAX)
    return (get_bytes(value, "SignedRFC3161Timestamp", "the time stamp annotation"),)
