"""Notation signatures (Notary Project) in JWS envelopes, verified against given trust anchors.

https://github.com/notaryproject/specifications/blob/main/specs/signature-envelope-jws.md
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    ExtendedKeyUsage,
    ExtensionNotFound,
    KeyUsage,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from lifecycle.core.types import Digest
from lifecycle.signatures.constants import CERTIFICATES_MAX, MIB, NOTATION_PAYLOAD
from lifecycle.signatures.keys import verifying_key
from lifecycle.signatures.reading import decode_base64, get_object, get_text, json_object, only, parse_time
from lifecycle.signatures.roots import load_certificate
from lifecycle.signatures.types import SignatureRefused, Signer, Verified

_ENVELOPE_MAX: Final = 10 * MIB
_SCHEME_KEY: Final = "io.cncf.notary.signingScheme"
_TIME_KEY: Final = "io.cncf.notary.signingTime"
_EXPIRY_KEY: Final = "io.cncf.notary.expiry"
_AUTHENTIC_TIME_KEY: Final = "io.cncf.notary.authenticSigningTime"
_X509: Final = "notary.x509"
_AUTHORITY: Final = "notary.x509.signingAuthority"
_KNOWN: Final = frozenset({"alg", "cty", "crit", _SCHEME_KEY, _TIME_KEY, _EXPIRY_KEY, _AUTHENTIC_TIME_KEY})
# RFC 7518. RSA is PSS only, with the hash by the key's length; so are the curves. None is "none", HMAC or PKCS #1 v1.5.
_RSA: Final = {2048: ("PS256", hashes.SHA256()), 3072: ("PS384", hashes.SHA384()), 4096: ("PS512", hashes.SHA512())}
_EC: Final = {256: ("ES256", hashes.SHA256()), 384: ("ES384", hashes.SHA384()), 521: ("ES512", hashes.SHA512())}


def load_anchors(pem: str) -> list[Certificate]:
    """Return the certificates of a trust store in PEM; raises SignatureRefused."""
    try:
        anchors = load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise SignatureRefused("These are no certificates in PEM form (BEGIN CERTIFICATE).") from error
    if len(anchors) > CERTIFICATES_MAX:
        raise SignatureRefused(f"Use at most {CERTIFICATES_MAX} certificates.")
    return anchors


def fingerprint(certificate: Certificate) -> str:
    """Return `sha256:<hex>` of a certificate."""
    return "sha256:" + hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def verify_jws(content: bytes, anchors: Sequence[Certificate], digest: Digest, *, now: datetime) -> Verified:
    """Return who signed the image `digest` in a JWS envelope, with a chain up to one of `anchors`.

    The signing time is the signer's own word, except with a signing authority. So the chain must be valid today, and
    the signature must not be expired. Raises SignatureRefused.
    """
    value = json_object(content, "JWS envelope", max_bytes=_ENVELOPE_MAX)
    only(value, {"payload", "protected", "header", "signature"}, "The JWS envelope")
    protected_text, payload_text = (
        get_text(value, "protected", "The envelope"),
        get_text(value, "payload", "The envelope"),
    )
    protected = json_object(decode_base64(protected_text, "the protected header"), "protected header", max_bytes=MIB)
    signed_at = _check_header(protected, now)
    chain = _chain_of(get_object(value, "header", "The envelope"))
    # With a signing authority the authority vouches for the time. Otherwise only today is certain.
    moment = signed_at if protected[_SCHEME_KEY] == _AUTHORITY else now
    anchor = _check_chain(chain, anchors, moment)
    signature = decode_base64(get_text(value, "signature", "The envelope"), "the signature")
    _check_signature(chain[0], str(protected.get("alg")), signature, f"{protected_text}.{payload_text}".encode())
    payload = decode_base64(payload_text, "the payload")
    annotations = _check_payload(payload, digest)
    subject = chain[0].subject.rfc4514_string()
    return Verified(
        Signer(key_fingerprint=fingerprint(anchor), identity=subject),
        signed_at if protected[_SCHEME_KEY] == _AUTHORITY else None,
        None,
        payload,
        annotations,
    )


def _check_header(protected: dict[str, Any], now: datetime) -> datetime:
    """Check the protected header and return the signing time that it claims; raises SignatureRefused."""
    if protected.get("cty") != NOTATION_PAYLOAD:
        raise SignatureRefused("The signed payload is of an unknown type.")
    scheme = protected.get(_SCHEME_KEY)
    if scheme not in {_X509, _AUTHORITY}:
        raise SignatureRefused("The signing scheme is unknown.")
    critical = protected.get("crit")
    if not isinstance(critical, list) or not all(isinstance(name, str) for name in critical):
        raise SignatureRefused("The header names no critical fields.")
    for name in critical:
        if name not in _KNOWN or name not in protected:
            raise SignatureRefused(f"The critical field {name[:60]!r} is unknown or absent.")
    needed = (
        {_SCHEME_KEY} | ({_EXPIRY_KEY} & set(protected)) | ({_AUTHENTIC_TIME_KEY} if scheme == _AUTHORITY else set())
    )
    if not needed <= set(critical):
        raise SignatureRefused(f"The field {sorted(needed - set(critical))[0]!r} must be critical.")
    unknown = sorted(set(protected) - _KNOWN)
    if unknown:
        raise SignatureRefused(f"The header has the unknown field {unknown[0][:60]!r}.")
    key = _AUTHENTIC_TIME_KEY if scheme == _AUTHORITY else _TIME_KEY
    if (_TIME_KEY in protected) == (_AUTHENTIC_TIME_KEY in protected):
        raise SignatureRefused("The header must have exactly one signing time.")
    signed_at = parse_time(protected.get(key), "The signing time")
    if signed_at > now:
        raise SignatureRefused("The signature is from the future.")
    if _EXPIRY_KEY in protected:
        expires_at = parse_time(protected[_EXPIRY_KEY], "The expiry")
        if expires_at <= signed_at or expires_at <= now:
            raise SignatureRefused(f"The signature expired at {expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC.")
    return signed_at


def _chain_of(header: dict[str, Any]) -> list[Certificate]:
    rows = header.get("x5c")
    if not isinstance(rows, list) or not 1 <= len(rows) <= CERTIFICATES_MAX:
        raise SignatureRefused(f"The envelope must have 1 to {CERTIFICATES_MAX} certificates.")
    if not all(isinstance(row, str) for row in rows):
        raise SignatureRefused("A certificate of the envelope cannot be read.")
    return [load_certificate(decode_base64(row, "a certificate")) for row in rows]


def _check_chain(chain: Sequence[Certificate], anchors: Sequence[Certificate], moment: datetime) -> Certificate:
    """Return the anchor that the chain leads to; raises SignatureRefused.

    Checked here, and not by the rules for web servers: signing certificates have no host names, and a lone self-signed
    one is allowed.
    """
    trusted = {fingerprint(anchor): anchor for anchor in anchors}
    _check_leaf(chain[0], is_alone=len(chain) == 1)
    for number, certificate in enumerate(chain):
        if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
            raise SignatureRefused(f"A certificate of the signer was not valid at {moment:%Y-%m-%d %H:%M} UTC.")
        if number + 1 < len(chain):
            _check_issued(certificate, chain[number + 1], below=number)
    for certificate in chain:
        if fingerprint(certificate) in trusted:
            return certificate
    for anchor in anchors:  # the envelope may leave out the root itself
        try:
            _check_issued(chain[-1], anchor, below=len(chain) - 1)
        except SignatureRefused:
            continue
        if anchor.not_valid_before_utc <= moment <= anchor.not_valid_after_utc:
            return anchor
    raise SignatureRefused("The signer's certificate does not lead to a trusted certificate.")


def _check_issued(certificate: Certificate, issuer: Certificate, *, below: int) -> None:
    """Raise SignatureRefused unless `issuer` is an authority that issued `certificate`, `below` others under it."""
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(KeyUsage).value
    except (ValueError, TypeError, InvalidSignature, ExtensionNotFound) as error:
        raise SignatureRefused("The signer's certificates do not form a chain.") from error
    if not constraints.ca or not usage.key_cert_sign:
        raise SignatureRefused("A certificate of the chain is not one of an authority.")
    if constraints.path_length is not None and below > constraints.path_length:
        raise SignatureRefused("The signer's chain is longer than its authority allows.")


def _check_leaf(leaf: Certificate, *, is_alone: bool) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(KeyUsage).value
    except (ExtensionNotFound, ValueError) as error:
        raise SignatureRefused("The signer's certificate does not say what it is for.") from error
    if not usage.digital_signature:
        raise SignatureRefused("The signer's certificate is not for signatures.")
    try:
        if leaf.extensions.get_extension_for_class(BasicConstraints).value.ca:
            raise SignatureRefused("The signer's certificate is one of an authority.")
    except ExtensionNotFound:
        pass
    try:
        purposes = leaf.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise SignatureRefused("The signer's certificate is not for code signing.")


def _check_signature(leaf: Certificate, algorithm: str, signature: bytes, signed: bytes) -> None:
    key = verifying_key(leaf.public_key()).key
    try:
        if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA:
            name, hashed = _RSA[key.key_size]
            _check_name(algorithm, name)
            key.verify(signature, signed, padding.PSS(padding.MGF1(hashed), hashed.digest_size), hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            name, hashed = _EC[key.key_size]
            _check_name(algorithm, name)
            half = (key.key_size + 7) // 8
            if len(signature) != 2 * half:
                raise SignatureRefused("The signature has a wrong length.")
            r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashed))
        else:
            raise SignatureRefused("The signer's key is of a kind that notation does not use.")
    except InvalidSignature as error:
        raise SignatureRefused("The signature does not match the content.") from error


def _check_name(found: str, wanted: str) -> None:
    if found != wanted:
        raise SignatureRefused(f"The algorithm {found[:20]!r} does not fit the signer's key: {wanted}.")


def _check_payload(payload: bytes, digest: Digest) -> dict[str, str]:
    """Return the signed annotations, if the payload is about the image `digest`; raises SignatureRefused."""
    target = get_object(json_object(payload, "signed payload", max_bytes=MIB), "targetArtifact", "The signed payload")
    if target.get("digest") != digest.text:
        raise SignatureRefused("The signature is about another image.")
    annotations = target.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    return {str(key)[:100]: value[:500] for key, value in list(annotations.items())[:50] if isinstance(value, str)}
