"""Registry tokens: ES256 JWTs that contain our certificate."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from django.conf import settings

from lifecycle.oci.scopes import Scope

TOKEN_LIFE_S: Final = 300  # a registry token cannot be revoked, so a revoked right still works for up to this time
NOT_BEFORE_SLACK_S: Final = 10


class BadTokenKey(RuntimeError):
    """The signing key or its certificate cannot be used, for the reason in the message."""


@dataclass(frozen=True, slots=True)
class SignedToken:
    text: str
    issued_at: int  # seconds since 1970
    expires_in: int


_ES256: Final = ec.ECDSA(hashes.SHA256())


def _encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


@lru_cache(maxsize=1)
def _key(key_pem: str, certificate_pem: str) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return the key, and the first part of every token that it signs."""
    key = load_pem_private_key(key_pem.encode(), password=None)
    certificate = load_pem_x509_certificate(certificate_pem.encode())
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadTokenKey("TOKEN_KEY is not an EC P-256 private key.")
    if certificate.public_key() != key.public_key():
        raise BadTokenKey("TOKEN_CERT is not the certificate of TOKEN_KEY.")
    chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")]
    return key, _encoded(orjson.dumps({"alg": "ES256", "typ": "JWT", "x5c": chain}))


def sign(subject: str, access: Iterable[Scope], *, now: int | None = None) -> SignedToken:
    """Return a token with `access` for `subject`, a user name. Notifications contain it as `actor.name`.

    It is put together here, because a library takes as long for the rest as OpenSSL for the signature.
    """
    key, header = _key(settings.TOKEN_KEY, settings.TOKEN_CERT)
    issued_at = int(time.time()) if now is None else now  # whole seconds: Distribution refuses floats
    claims = {
        "iss": settings.TOKEN_ISSUER,
        "sub": subject,
        "aud": settings.REGISTRY_SERVICE,
        "iat": issued_at,
        "nbf": issued_at - NOT_BEFORE_SLACK_S,
        "exp": issued_at + TOKEN_LIFE_S,
        "jti": secrets.token_urlsafe(12),
        "access": [scope.as_access() for scope in access],
    }
    signed = header + b"." + _encoded(orjson.dumps(claims))
    r, s = decode_dss_signature(key.sign(signed, _ES256))
    text = signed + b"." + _encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return SignedToken(text.decode("ascii"), issued_at, TOKEN_LIFE_S)
