"""Registry tokens: ES256 JWTs that contain our certificate."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
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


@lru_cache(maxsize=1)
def _key(key_pem: str, certificate_pem: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    key = load_pem_private_key(key_pem.encode(), password=None)
    certificate = load_pem_x509_certificate(certificate_pem.encode())
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadTokenKey("TOKEN_KEY is not an EC P-256 private key.")
    if certificate.public_key() != key.public_key():
        raise BadTokenKey("TOKEN_CERT is not the certificate of TOKEN_KEY.")
    return key, base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")


def sign(subject: str, access: Iterable[Scope], *, now: int | None = None) -> SignedToken:
    """Return a token with `access` for `subject`, a user name. Notifications contain it as `actor.name`."""
    key, certificate = _key(settings.TOKEN_KEY, settings.TOKEN_CERT)
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
    text = jwt.encode(claims, key, algorithm="ES256", headers={"typ": "JWT", "x5c": [certificate]})
    return SignedToken(text, issued_at, TOKEN_LIFE_S)
