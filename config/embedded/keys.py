"""Secrets and keys, generated at the first start. None has a default."""

from __future__ import annotations

import base64
import datetime
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

# The registry rejects tokens with an expired certificate, so the certificate must outlive any installation.
_CERTIFICATE_DAYS: Final = 365 * 30


def password() -> str:
    """Return 32 random bytes as text without characters that need quoting in URLs, shells or configuration files."""
    return secrets.token_urlsafe(32)


def fernet_key() -> str:
    """Return a key for credentials at rest (32 random bytes, URL-safe base64 with padding)."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner can read. It is written completely or not at all, also in a power failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def make_token_key(key_file: Path, certificate_file: Path) -> None:
    """Write the key that signs registry tokens, and its self-signed certificate that the registry trusts.

    Both registry generations verify ES256 with one self-signed certificate in `x5c` (EC P-256). An Ed25519 certificate
    in the bundle stops Distribution 2.8. The certificate is the registry's `rootcertbundle`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gravingdock registry tokens")])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(certificate_file, certificate.public_bytes(Encoding.PEM))
