"""Public keys: load them, name them by fingerprint, and check signatures with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from cryptography.x509 import load_pem_x509_certificate

from lifecycle.signatures.constants import RSA_BITS_MIN
from lifecycle.signatures.types import Artifact, SignatureRefused

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_HASHES: Final = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
_BY_CURVE: Final = {"secp256r1": ("sha256",), "secp384r1": ("sha384", "sha256"), "secp521r1": ("sha512", "sha256")}
_PEM_MAX: Final = 16 * 1024
_BAD: Final = "The signature does not match the content."


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key that may verify signatures: EC P-256, P-384 or P-521, RSA from 2048 bits, or Ed25519."""

    key: PublicKey
    der: bytes  # SubjectPublicKeyInfo

    @property
    def fingerprint(self) -> str:
        """`sha256:<hex>` of the SubjectPublicKeyInfo, as logs and bundles identify keys too."""
        return "sha256:" + hashlib.sha256(self.der).hexdigest()

    @property
    def kind(self) -> str:
        """The key's kind in words: `ECDSA P-256`, `RSA 3072`, `Ed25519`."""
        if isinstance(self.key, ec.EllipticCurvePublicKey):
            return f"ECDSA P-{self.key.key_size}"
        return f"RSA {self.key.key_size}" if isinstance(self.key, rsa.RSAPublicKey) else "Ed25519"

    @property
    def hash_names(self) -> Sequence[str]:
        """The hashes that signatures by this key can use, the usual one first."""
        if isinstance(self.key, ec.EllipticCurvePublicKey):
            return _BY_CURVE[self.key.curve.name]
        return ("sha256",)

    def check(self, signature: bytes, message: bytes) -> None:
        """Raise SignatureRefused unless `signature` is this key's over `message`."""
        self.check_artifact(signature, Artifact.of(message))

    def check_artifact(self, signature: bytes, artifact: Artifact, *, hash_name: str = "") -> None:
        """Raise SignatureRefused unless `signature` is this key's over the artifact, of which only digests are needed.

        `hash_name` is the hash that the document names; without it the key's usual ones are tried.
        """
        key = self.key
        if isinstance(key, ed25519.Ed25519PublicKey):
            if artifact.content is None:
                raise SignatureRefused("An Ed25519 signature needs the content itself. A digest is not enough.")
            try:
                key.verify(signature, artifact.content)
            except InvalidSignature as error:
                raise SignatureRefused(_BAD) from error
            return
        for name in (hash_name,) if hash_name else self.hash_names:
            digest = artifact.digests.get(name)
            if digest is not None and self._is_over(signature, digest, name):
                return
        raise SignatureRefused(_BAD)

    def _is_over(self, signature: bytes, digest: bytes, hash_name: str) -> bool:
        key, algorithm = self.key, Prehashed(_HASHES[hash_name])
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(_as_der(signature, key), digest, ec.ECDSA(algorithm))
            elif isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, digest, padding.PKCS1v15(), algorithm)
            else:
                return False
        except InvalidSignature:
            return False
        return True


def _as_der(signature: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """Return an ECDSA signature in DER. Some signers write the two numbers side by side (IEEE P1363), as in JWS."""
    half = (key.key_size + 7) // 8
    if len(signature) != 2 * half or _is_der(signature):
        return signature
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))


def _is_der(signature: bytes) -> bool:
    try:
        decode_dss_signature(signature)
    except ValueError:
        return False
    return True


def load_public_key(text: str | bytes) -> VerifyingKey:
    """Return the public key of a PEM text (a key, or a certificate with the key). Raises SignatureRefused."""
    content = text.encode() if isinstance(text, str) else text
    if len(content) > _PEM_MAX:
        raise SignatureRefused("The public key is too large.")
    if b"PRIVATE KEY" in content:
        raise SignatureRefused("This is a private key. Use the public key only.")
    try:
        if b"BEGIN CERTIFICATE" in content:
            return verifying_key(load_pem_x509_certificate(content).public_key())
        return verifying_key(load_pem_public_key(content))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureRefused("This is no public key in PEM form (BEGIN PUBLIC KEY).") from error


def load_der_key(der: bytes) -> VerifyingKey:
    """Return the public key of a SubjectPublicKeyInfo in DER. Raises SignatureRefused."""
    try:
        return verifying_key(load_der_public_key(der))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureRefused("This is no public key in DER form.") from error


def verifying_key(key: object) -> VerifyingKey:
    """Return a key of `cryptography` for verifying; raises SignatureRefused for kinds and sizes that we do not take."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _BY_CURVE:
        raise SignatureRefused("Use a key on the curve P-256, P-384 or P-521.")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise SignatureRefused(f"An RSA key needs at least {RSA_BITS_MIN} bits.")
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise SignatureRefused("Use an ECDSA, RSA or Ed25519 key.")
    return VerifyingKey(key, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
