"""Certificates of signers: their chain at a moment, their identity, and the log that vouches that they are public."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    ExtendedKeyUsage,
    ExtensionNotFound,
    KeyUsage,
    ObjectIdentifier,
    PrecertificateSignedCertificateTimestamps,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)
from cryptography.x509.certificate_transparency import LogEntryType, SignedCertificateTimestamp
from cryptography.x509.general_name import UnsupportedGeneralNameType
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from lifecycle.signatures.roots import Log
from lifecycle.signatures.types import SignatureRefused, Signer

# https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
_ISSUER: Final = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")  # the raw text
_ISSUER_V2: Final = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")  # a DER UTF8String
_UTF8_STRING: Final = 0x0C


def check_leaf(certificate: Certificate) -> None:
    """Raise SignatureRefused when the certificate of a signer is one of an authority."""
    try:
        constraints = certificate.extensions.get_extension_for_class(BasicConstraints).value
    except ExtensionNotFound:
        return
    except ValueError as error:
        raise SignatureRefused("The signer's certificate cannot be read.") from error
    if constraints.ca:
        raise SignatureRefused("The signer's certificate is one of an authority.")


def chain_at(leaf: Certificate, anchors: Iterable[Certificate], moment: datetime) -> list[Certificate]:
    """Return the issuers of `leaf` up to an anchor, nearest first, all valid at `moment`; raises SignatureRefused.

    `anchors` must all be trusted, intermediate certificates too: the ones that a signer sends along prove nothing.
    """
    store = list(anchors)
    if not store:
        raise SignatureRefused("No authority is trusted for that time.")
    # Fulcio's certificates are for code signing, not for TLS clients; the extension is checked separately.
    any_usage = (ExtendedKeyUsage, Criticality.NON_CRITICAL, None)
    verifier = (
        PolicyBuilder()
        .store(Store(store))
        .time(moment.astimezone(UTC))
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca().may_be_present(*any_usage),
            ee_policy=ExtensionPolicy.webpki_defaults_ee().may_be_present(*any_usage),
        )
        .build_client_verifier()
    )
    try:
        return list(verifier.verify(leaf, []).chain[1:])
    except (VerificationError, UnsupportedGeneralNameType, ValueError) as error:
        raise SignatureRefused(
            f"The signer's certificate is not from a trusted authority, or was not valid at "
            f"{moment:%Y-%m-%d %H:%M} UTC."
        ) from error


def check_code_signing(leaf: Certificate) -> None:
    """Raise SignatureRefused unless the certificate is for signatures over code."""
    try:
        usage = leaf.extensions.get_extension_for_class(KeyUsage).value
        purposes = leaf.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except (ExtensionNotFound, ValueError) as error:
        raise SignatureRefused("The signer's certificate does not say what it is for.") from error
    if not usage.digital_signature or ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise SignatureRefused("The signer's certificate is not for code signing.")


def identity_of(leaf: Certificate) -> Signer:
    """Return the identity in a Fulcio certificate: exactly one e-mail address or URI, and the issuer.

    Raises SignatureRefused.
    """
    try:
        names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
    except (ExtensionNotFound, ValueError) as error:
        raise SignatureRefused("The signer's certificate has no identity.") from error
    identities = [*names.get_values_for_type(RFC822Name), *names.get_values_for_type(UniformResourceIdentifier)]
    if len(identities) != 1 or len(list(names)) != 1:
        raise SignatureRefused("The signer's certificate does not have exactly one e-mail address or URI.")
    return Signer(identity=identities[0], issuer=_issuer_of(leaf))


def _issuer_of(leaf: Certificate) -> str:
    raw = _extension(leaf, _ISSUER_V2)
    if raw is not None:
        if len(raw) < 2 or raw[0] != _UTF8_STRING:
            raise SignatureRefused("The issuer in the signer's certificate cannot be read.")
        length, start = raw[1], 2
        if length & 0x80:  # the long form of DER: the number of bytes that hold the length
            count = length & 0x7F
            length, start = int.from_bytes(raw[2 : 2 + count], "big"), 2 + count
        raw = raw[start : start + length] if start + length == len(raw) else None
    else:
        raw = _extension(leaf, _ISSUER)
    if not raw:
        raise SignatureRefused("The signer's certificate names no issuer.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise SignatureRefused("The issuer in the signer's certificate cannot be read.") from error


def _extension(leaf: Certificate, oid: ObjectIdentifier) -> bytes | None:
    try:
        value: bytes = leaf.extensions.get_extension_for_oid(oid).value.public_bytes()
    except (ExtensionNotFound, ValueError):
        return None
    return value


def check_sct(leaf: Certificate, chain: Sequence[Certificate], logs: Sequence[Log]) -> None:
    """Raise SignatureRefused unless a certificate transparency log in `logs` has seen the certificate (RFC 6962)."""
    try:
        stamps = list(leaf.extensions.get_extension_for_class(PrecertificateSignedCertificateTimestamps).value)
    except (ExtensionNotFound, ValueError) as error:
        raise SignatureRefused("The signer's certificate has no certificate transparency time stamp.") from error
    if len(stamps) != 1:
        raise SignatureRefused("The signer's certificate must have exactly one certificate transparency time stamp.")
    stamp = stamps[0]
    log = next((log for log in logs if log.key_id == stamp.log_id), None)
    if log is None or not log.period.covers(stamp.timestamp.replace(tzinfo=UTC)):
        raise SignatureRefused("The certificate transparency log of the signer's certificate is not trusted.")
    if not isinstance(stamp.signature_hash_algorithm, SHA256):
        raise SignatureRefused("The certificate transparency time stamp uses another hash than SHA-256.")
    log.key.check(stamp.signature, _signed_by_log(stamp, leaf, chain[0]))


def _signed_by_log(stamp: SignedCertificateTimestamp, leaf: Certificate, issuer: Certificate) -> bytes:
    """Return the bytes that a log signs for a certificate that contains its time stamp: RFC 6962, 3.2."""
    if stamp.entry_type != LogEntryType.PRE_CERTIFICATE:
        raise SignatureRefused("The certificate transparency time stamp is of an unknown kind.")
    issuer_key = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = leaf.tbs_precertificate_bytes
    milliseconds = int(stamp.timestamp.replace(tzinfo=UTC).timestamp() * 1000)
    return b"".join(
        (
            struct.pack("!BBQH", stamp.version.value, 0, milliseconds, stamp.entry_type.value),
            hashlib.sha256(issuer_key).digest(),
            struct.pack("!I", len(body))[1:],
            body,
            struct.pack("!H", len(stamp.extension_bytes)),
            stamp.extension_bytes,
        )
    )
