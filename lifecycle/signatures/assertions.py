"""Assertions of passkeys (WebAuthn level 3), verified without Django, model and network.

It needs the standard library and `cryptography` only, so that a program outside of Gravingdock can use this file alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

_USER_PRESENT: Final = 0x01  # flags of authenticator data, WebAuthn 6.1
_USER_VERIFIED: Final = 0x04
_AUTHENTICATOR_DATA_MIN: Final = 37  # bytes: hash of the RP id, flags, counter
_CLIENT_DATA_MAX: Final = 16 * 1024  # bytes


class BadAssertion(ValueError):
    """An assertion does not prove what it should; the message says which check failed."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """What an authenticator signed. All fields are raw bytes; `public_key` is a SubjectPublicKeyInfo in DER."""

    public_key: bytes
    authenticator_data: bytes
    client_data_json: bytes
    signature: bytes

    @property
    def counter(self) -> int:
        """The signature counter; 0 for authenticators without one."""
        (value,) = struct.unpack(">I", self.authenticator_data[33:37])
        return int(value)


def verify(assertion: Assertion, *, challenge: bytes, rp_id: str, site: str = "") -> str:
    """Return the origin of the page that asked, if the holder of the key signed `challenge` there and was verified.

    WebAuthn 7.2, steps 11 to 21: type, challenge, origin, RP id, presence, verification (PIN or biometrics), signature.
    With `site` (scheme://host[:port]), the page must be of exactly that origin: another service of the host could ask
    for a signature over a challenge that it got from us. Raises BadAssertion.
    """
    try:
        client = json.loads(assertion.client_data_json[:_CLIENT_DATA_MAX])
        kind, sent, origin = client["type"], client["challenge"], client["origin"]
        signed = base64.urlsafe_b64decode(sent + "=" * (-len(sent) % 4))
    except (ValueError, KeyError, TypeError) as error:
        raise BadAssertion("The client data cannot be read.") from error
    if kind != "webauthn.get":
        raise BadAssertion("The client data is not of an assertion.")
    if not hmac.compare_digest(signed, challenge):
        raise BadAssertion("Something else was signed.")
    if not is_origin_of(rp_id, str(origin), site) or client.get("crossOrigin") is True:
        raise BadAssertion("It was signed for another site.")
    data = assertion.authenticator_data
    if len(data) < _AUTHENTICATOR_DATA_MIN or not hmac.compare_digest(
        data[:32], hashlib.sha256(rp_id.encode()).digest()
    ):
        raise BadAssertion("The authenticator data is of another site.")
    if not data[32] & _USER_PRESENT or not data[32] & _USER_VERIFIED:
        raise BadAssertion("The authenticator did not verify its user.")
    message = data + hashlib.sha256(assertion.client_data_json).digest()
    _verify_signature(assertion.public_key, message, assertion.signature)
    return str(origin)


def is_origin_of(rp_id: str, origin: str, site: str = "") -> bool:
    """Return whether pages of `origin` speak for `rp_id`: that host exactly, over https, or on this machine.

    With `site`, scheme and port must be those of `site` too.
    """
    try:
        parts, own = urlsplit(origin), urlsplit(site)
        host = parts.hostname
        is_elsewhere = site != "" and (parts.scheme, _port(parts)) != (own.scheme, _port(own))
    except ValueError:
        return False
    if is_elsewhere:
        return False
    return host == rp_id and (parts.scheme == "https" or (parts.scheme == "http" and host == "localhost"))


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _verify_signature(public_key: bytes, message: bytes, signature: bytes) -> None:
    try:
        key = serialization.load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadAssertion("The public key cannot be read.") from error
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise BadAssertion("The public key is of no supported kind: ES256, EdDSA or RS256.")
    except InvalidSignature as error:
        raise BadAssertion("The signature is wrong.") from error
