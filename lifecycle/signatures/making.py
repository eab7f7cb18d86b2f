"""Make signatures that cosign, skopeo and sigstore's libraries verify: bundles of version 0.3, and simple signing.

P-256 with SHA-256 only: other algorithms differ between the versions of the tools (docs/adr).
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from lifecycle.core.types import Digest
from lifecycle.signatures.constants import BUNDLE_V03, IN_TOTO, STATEMENT_V1
from lifecycle.signatures.cosign_keys import decrypt, is_cosign_key
from lifecycle.signatures.dsse import pae
from lifecycle.signatures.types import SignatureRefused

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


class KeySigner(Protocol):
    """Signs with a private key on P-256, which it holds, or which is somewhere else."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, message: bytes) -> bytes:
        """Return the ECDSA signature with SHA-256, in DER."""
        ...


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """Signs with a key in memory."""

    key: PrivateKey

    @property
    def public_key(self) -> PublicKey:
        return self.key.public_key()

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))


def new_private_key() -> PrivateKey:
    """Return a new ECDSA key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def load_private_key(pem: bytes, password: str = "") -> PrivateKey:
    """Return the private key of a PEM text (PKCS #8, SEC 1 or cosign's), decrypted with `password`.

    Raises SignatureRefused.
    """
    try:
        if is_cosign_key(pem):
            key = load_der_private_key(decrypt(pem, password), None)
        else:
            key = load_pem_private_key(pem, password.encode() or None)
    except (ValueError, TypeError) as error:
        raise SignatureRefused("This is no private key in PEM form, or the password is wrong.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureRefused("Use an ECDSA key on the curve P-256.")
    return key


def private_pem(key: PrivateKey) -> str:
    """Return the key in PKCS #8, not encrypted. It must be sealed before it is stored."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: PublicKey) -> str:
    """Return the public key in PEM form, as `cosign verify --key` reads it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def make_statement(digest: Digest, predicate_type: str, predicate: bytes) -> bytes:
    """Return an in-toto statement about one image, without fields that strict verifiers do not know.

    `predicate` is JSON, and is put in as it is: an SBOM can have tens of megabytes.
    """
    head = {
        "_type": STATEMENT_V1,
        "subject": [{"digest": {digest.algorithm: digest.encoded}}],
        "predicateType": predicate_type,
    }
    return json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"predicate":' + predicate + b"}"


def make_bundle(signer: KeySigner, statement: bytes) -> bytes:
    """Return a bundle over a statement. Without a key id: sigstore's verifier refuses every one but its own form."""
    der = signer.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    bundle = {
        "mediaType": BUNDLE_V03,
        "verificationMaterial": {"publicKey": {"hint": _base64(hashlib.sha256(der).digest())}},
        "dsseEnvelope": {
            "payload": _base64(statement),
            "payloadType": IN_TOTO,
            "signatures": [{"sig": _base64(signer.sign(pae(IN_TOTO, statement)))}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode()


def make_simple_signature(signer: KeySigner, digest: Digest, reference: str) -> tuple[bytes, str]:
    """Return (payload, signature in base64) for cosign's `.sig` tag.

    `reference` is `<registry>/<repository>`. Cosign ignores it; the policies of containers/image check it.
    """
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest.text},
        "type": "cosign container image signature",
    }
    payload = json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()
    return payload, _base64(signer.sign(payload))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
