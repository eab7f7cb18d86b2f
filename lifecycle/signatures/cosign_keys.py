"""Private keys in cosign's own encrypted form, as `cosign generate-key-pair` writes them (scrypt, then secretbox)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from lifecycle.signatures.reading import get_bytes, get_object, json_object
from lifecycle.signatures.types import SignatureRefused

_PEM: Final = re.compile(
    rb"-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)"
    rb"-----END ENCRYPTED \1 PRIVATE KEY-----\s*"
)
_COSTS: Final = frozenset({32768, 65536, 131072})  # scrypt's N that sigstore writes; others could take all memory
_MAX_BYTES: Final = 64 * 1024


def is_cosign_key(pem: bytes) -> bool:
    """Return whether a PEM text is a private key in cosign's encrypted form."""
    return _PEM.fullmatch(pem.strip()) is not None


def decrypt(pem: bytes, password: str) -> bytes:
    """Return the private key, PKCS #8 in DER; raises SignatureRefused when the password or the form is wrong."""
    found = _PEM.fullmatch(pem.strip())
    if found is None or len(pem) > _MAX_BYTES:
        raise SignatureRefused("This is no encrypted private key of cosign.")
    try:
        content = base64.b64decode(b"".join(found.group(2).split()), validate=True)
    except binascii.Error as error:
        raise SignatureRefused("This is no encrypted private key of cosign.") from error
    value = json_object(content, "private key", max_bytes=_MAX_BYTES)
    kdf, cipher = get_object(value, "kdf", "The private key"), get_object(value, "cipher", "The private key")
    secret = _derive(kdf, password)
    if cipher.get("name") != "nacl/secretbox":
        raise SignatureRefused("The private key is encrypted with an unknown cipher.")
    nonce = get_bytes(cipher, "nonce", "the private key")
    if len(nonce) != SecretBox.NONCE_SIZE:
        raise SignatureRefused("The private key has a nonce of the wrong length.")
    try:
        return SecretBox(secret).decrypt(get_bytes(value, "ciphertext", "the private key"), nonce)
    except CryptoError as error:
        raise SignatureRefused("The password of the private key is wrong.") from error


def _derive(kdf: dict[str, Any], password: str) -> bytes:
    parameters = get_object(kdf, "params", "The private key")
    if (kdf.get("name"), parameters.get("r"), parameters.get("p")) != ("scrypt", 8, 1):
        raise SignatureRefused("The private key is encrypted with an unknown key derivation.")
    cost = parameters.get("N")
    if cost not in _COSTS:
        raise SignatureRefused("The private key is encrypted with an unusual cost.")
    salt = get_bytes(kdf, "salt", "the private key")
    return Scrypt(salt=salt, length=SecretBox.KEY_SIZE, n=int(cost), r=8, p=1).derive(password.encode())
