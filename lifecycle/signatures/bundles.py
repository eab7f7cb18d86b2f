"""Sigstore bundles of versions 0.1 to 0.3: one document with a signature and everything to verify it offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cryptography.x509 import Certificate

from lifecycle.signatures.certificates import check_leaf
from lifecycle.signatures.constants import (
    BUNDLE_TYPES,
    BUNDLE_V01,
    BUNDLE_V02,
    CERTIFICATES_MAX,
    TIMESTAMPS_MAX,
)
from lifecycle.signatures.dsse import Envelope, check_statement, read_envelope, verify_envelope
from lifecycle.signatures.keys import VerifyingKey
from lifecycle.signatures.logs import LogEntry, check_body, read_entry, verify_entry
from lifecycle.signatures.reading import get_bytes, get_list, get_object, get_text, json_object, only
from lifecycle.signatures.roots import TrustedRoot, load_certificate
from lifecycle.signatures.types import Artifact, SignatureRefused, Signer, Verified

_ENTRIES_MAX: Final = 10
_HASHES: Final = {"SHA2_256": "sha256", "SHA2_384": "sha384", "SHA2_512": "sha512"}


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """A signature over content that is not in the bundle."""

    signature: bytes
    hash_name: str  # "" when the bundle does not name the digest
    digest: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A parsed bundle. Nothing in it is verified yet. Exactly one of `envelope` and `message` is set."""

    content: bytes
    media_type: str
    certificate: Certificate | None  # None: signed with a key
    key_hint: str
    entries: tuple[LogEntry, ...]
    timestamps: tuple[bytes, ...]  # RFC 3161, DER
    envelope: Envelope | None
    message: MessageSignature | None

    @property
    def is_keyless(self) -> bool:
        return self.certificate is not None

    @property
    def signature(self) -> bytes:
        """The signature that time stamps are over."""
        if self.envelope is not None:
            return self.envelope.signatures[0]
        return self.message.signature if self.message is not None else b""


def parse_bundle(content: bytes) -> Bundle:
    """Return the bundle in a JSON document; raises SignatureRefused, also for fields that we do not know."""
    value = json_object(content, "bundle")
    only(value, {"mediaType", "verificationMaterial", "messageSignature", "dsseEnvelope"}, "The bundle")
    media_type = get_text(value, "mediaType", "The bundle")
    if media_type not in BUNDLE_TYPES:
        raise SignatureRefused(f"The bundle's version is not supported: {media_type[:100]}.")
    material = get_object(value, "verificationMaterial", "The bundle")
    only(
        material,
        {"publicKey", "x509CertificateChain", "certificate", "tlogEntries", "timestampVerificationData"},
        "The verification material",
    )
    certificate, key_hint = _signer(material, media_type)
    entries = get_list(material, "tlogEntries", "the bundle", limit=_ENTRIES_MAX)
    envelope, message = _content(value)
    return Bundle(
        content,
        media_type,
        certificate,
        key_hint,
        tuple(read_entry(entry) for entry in entries),
        _timestamps(material),
        envelope,
        message,
    )


def verify_with_key(bundle: Bundle, key: VerifyingKey, artifact: Artifact, root: TrustedRoot | None = None) -> Verified:
    """Return what was verified, if `key` signed the artifact (or an in-toto statement about it).

    A key needs no log. A log entry in the bundle must still be about this signature, and with `root` it must be of a
    trusted log. Raises SignatureRefused.
    """
    if bundle.is_keyless:
        raise SignatureRefused("The bundle is signed with a certificate, not with a key.")
    for entry in bundle.entries:
        check_body(entry, verifiers=(key.der,), envelope=bundle.envelope, signature=bundle.signature, artifact=artifact)
        if root is not None:
            verify_entry(entry, root.logs, needs_proof=bundle.media_type != BUNDLE_V01)
    if bundle.envelope is not None:
        verified = verify_envelope(bundle.envelope, key)
        check_statement(verified.statement, artifact.digest.text)
        return verified
    check_message(bundle.message, key, artifact)
    return Verified(Signer(key_fingerprint=key.fingerprint))


def check_message(message: MessageSignature | None, key: VerifyingKey, artifact: Artifact) -> None:
    """Raise SignatureRefused unless the message signature is `key`'s over the artifact, and names its digest."""
    if message is None:
        raise SignatureRefused("The bundle has no signature.")
    if message.hash_name:
        known = artifact.digests.get(message.hash_name)
        if known is None or known != message.digest:
            raise SignatureRefused("The bundle is about other content: its digest differs.")
    key.check_artifact(message.signature, artifact, hash_name=message.hash_name)


def _signer(material: dict[str, Any], media_type: str) -> tuple[Certificate | None, str]:
    kinds = [kind for kind in ("publicKey", "x509CertificateChain", "certificate") if material.get(kind) is not None]
    if len(kinds) != 1:
        raise SignatureRefused("The bundle must have either a key or a certificate.")
    holder = get_object(material, kinds[0], "The verification material")
    if kinds[0] == "publicKey":
        only(holder, {"hint"}, "The public key of the bundle")
        return None, str(holder.get("hint", ""))[:200]
    if kinds[0] == "certificate":
        if media_type in {BUNDLE_V01, BUNDLE_V02}:
            raise SignatureRefused("A bundle of this version must have a certificate chain.")
        only(holder, {"rawBytes"}, "The certificate of the bundle")
        leaf = load_certificate(get_bytes(holder, "rawBytes", "the certificate"))
    else:
        if media_type not in {BUNDLE_V01, BUNDLE_V02}:
            raise SignatureRefused("A bundle of version 0.3 must have exactly one certificate.")
        rows = get_list(holder, "certificates", "the bundle", limit=CERTIFICATES_MAX)
        if not rows:
            raise SignatureRefused("The bundle's certificate chain is empty.")
        leaf = load_certificate(get_bytes(rows[0], "rawBytes", "the certificate"))
    check_leaf(leaf)
    return leaf, ""


def _timestamps(material: dict[str, Any]) -> tuple[bytes, ...]:
    holder = material.get("timestampVerificationData")
    if holder is None:
        return ()
    if not isinstance(holder, dict):
        raise SignatureRefused("timestampVerificationData is not an object.")
    only(holder, {"rfc3161Timestamps"}, "timestampVerificationData")
    rows = get_list(holder, "rfc3161Timestamps", "the bundle", limit=TIMESTAMPS_MAX)
    stamps = tuple(get_bytes(row, "signedTimestamp", "a time stamp") for row in rows)
    if len(set(stamps)) != len(stamps):
        raise SignatureRefused("A time stamp stands twice in the bundle.")
    return stamps


def _content(value: dict[str, Any]) -> tuple[Envelope | None, MessageSignature | None]:
    if (value.get("dsseEnvelope") is None) == (value.get("messageSignature") is None):
        raise SignatureRefused("The bundle must have either an envelope or a message signature.")
    if value.get("dsseEnvelope") is not None:
        envelope = read_envelope(get_object(value, "dsseEnvelope", "The bundle"))
        if len(envelope.signatures) != 1:
            raise SignatureRefused("The envelope in a bundle must have exactly one signature.")
        return envelope, None
    holder = get_object(value, "messageSignature", "The bundle")
    only(holder, {"messageDigest", "signature"}, "The message signature")
    signature = get_bytes(holder, "signature", "the message signature")
    named = holder.get("messageDigest")
    if named is None:
        return None, MessageSignature(signature, "", b"")
    if not isinstance(named, dict) or named.get("algorithm") not in _HASHES:
        raise SignatureRefused("The bundle's digest has an unknown algorithm.")
    digest = get_bytes(named, "digest", "the message digest")
    return None, MessageSignature(signature, _HASHES[named["algorithm"]], digest)
