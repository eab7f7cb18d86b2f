"""Signers outside the database: in a variable, a file, a PKCS#11 token, or a key service, each named by a URI.

The URI says where the private key is; it holds no secret. Passwords and PINs come from settings. Every signature is
verified with the key that was registered, so a key that was replaced at its place is noticed before it is used.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.conf import settings
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import AWSSigner, AzureSigner, GCPSigner, HSMSigner, SSlibKey
from securesystemslib.signer import Signer as LibrarySigner

from lifecycle.core.errors import LifecycleError, LimitExceeded, RegistryRefused, RegistryUnavailable, UpstreamError
from lifecycle.core.http import ForbiddenDestination, HttpClient, Unreachable, assert_outside_transaction
from lifecycle.signatures.making import KeySigner, LocalSigner, PublicKey, load_private_key
from lifecycle.signatures.types import SignatureRefused
from lifecycle.trust.constants import KEY_PLACES

_EXTRAS: Final = {"hsm": "hsm", "awskms": "awskms", "gcpkms": "gcpkms", "azurekms": "azurekms"}
# Of python-pkcs11, which need not be installed. Trying again could lock the token.
_PIN_ERRORS: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked", "PinExpired"})
_FILE_MAX_BYTES: Final = 64 * 1024
T = TypeVar("T")
_SCHEME: Final = "ecdsa-sha2-nistp256"
_VAULT_KEY: Final = re.compile(r"(?:(?P<mount>[A-Za-z0-9_/-]+)/)?(?P<name>[A-Za-z0-9_.-]+)")
_AZURE_KEY: Final = re.compile(r"//(?P<vault>[A-Za-z0-9-]+)\.vault\.azure\.net/keys/(?P<name>[A-Za-z0-9-]+)(?:/.*)?")


class SignerUnavailable(RegistryUnavailable):
    """The place of a signing key cannot be reached, or did not sign. A retry can help."""

    code = "signer_unavailable"


class SignerRefused(RegistryRefused):
    """A signing key cannot sign until an operator fixes its settings. A retry does not help, and could lock a PIN."""

    code = "signer_refused"


def kind_of(uri: str) -> str:
    """Return where the key of a URI is, in words. Raises SignatureRefused for an unknown kind."""
    scheme = uri.partition(":")[0]
    if not scheme or scheme not in KEY_PLACES:
        raise SignatureRefused(f"Use a URI that begins with {', '.join(f'{name}:' for name in KEY_PLACES if name)}.")
    return KEY_PLACES[scheme]


def signer_at(uri: str, name: str) -> KeySigner:
    """Return the signer at `uri`, for the signing key `name`, by which its secrets are found in the settings.

    Can read files and call services, so call it outside a transaction. Raises SignatureRefused for what no retry heals,
    SignerUnavailable.
    """
    assert_outside_transaction()
    kind_of(uri)
    scheme, _, rest = uri.partition(":")
    if scheme == "env":
        pem = secret_of(name, "")
        if not pem:
            raise SignatureRefused(f"The variable {variable_of(name)} is not set.")
        return LocalSigner(load_private_key(pem.encode(), secret_of(name, "PASSWORD")))
    if scheme == "file":
        return LocalSigner(load_private_key(_read(rest), secret_of(name, "PASSWORD")))
    if scheme == "hashivault":
        return _vault(rest)
    return _from_library(scheme, uri, rest, secret_of(name, "PASSWORD"))


def variable_of(name: str) -> str:
    """Return the variable of a signing key: `SIGNING_KEY_RELEASE_2026` for `release-2026`."""
    return "SIGNING_KEY_" + name.upper().replace("-", "_")


def secret_of(name: str, what: str) -> str:
    """Return the PEM (`what` is "") or the password or PIN ("PASSWORD") of a signing key; "" when it is not set.

    SIGNING_KEY_PASSWORD is for every key without a password of its own.
    """
    values: dict[str, str] = settings.SIGNING_KEY_VALUES
    if not what:
        return values.get(variable_of(name), "")
    return values.get(f"{variable_of(name)}_{what}") or values.get(f"SIGNING_KEY_{what}", "")


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise SignerUnavailable(f"The file of the signing key cannot be read: {error.strerror}.") from error
    if len(content) > _FILE_MAX_BYTES:
        raise SignatureRefused("The file is too large for a private key.")
    return content


@dataclass(frozen=True, slots=True)
class RemoteSigner:
    """A key that signs somewhere else. `send` returns a signature in DER over a message."""

    public_key: PublicKey
    send: Callable[[bytes], bytes]

    def sign(self, message: bytes) -> bytes:
        """Return the signature, verified.

        Raises SignerUnavailable, or SignerRefused for one by another key, and for what no retry heals.
        """
        try:
            signature = self.send(message)
        except (SignatureRefused, UnsupportedLibraryError) as error:  # not about the image: an operator must act
            raise SignerRefused(f"The signing key does not sign. {error}") from error
        try:
            self.public_key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise SignerRefused("The signature is by another key than the registered one.") from error
        return signature


def _from_library(scheme: str, uri: str, rest: str, password: str) -> KeySigner:
    """Return a signer of securesystemslib. Its public key is read from the token or service."""
    if settings.PYKCS11LIB:
        os.environ["PYKCS11LIB"] = settings.PYKCS11LIB  # where the library looks for it

    def secrets_handler(_what: str) -> str:
        return password

    def load() -> RemoteSigner:
        key = _imported(scheme, rest, secrets_handler)
        signer = LibrarySigner.from_priv_key_uri(uri, key, secrets_handler)
        return RemoteSigner(_on_p256(key.keyval["public"]), lambda message: _calling(lambda: signed(signer, message)))

    def signed(signer: LibrarySigner, message: bytes) -> bytes:
        return bytes.fromhex(signer.sign(message).signature)

    try:
        return _calling(load)
    except UnsupportedLibraryError as error:
        extra = _EXTRAS[scheme]
        raise SignatureRefused(
            f"Keys in {KEY_PLACES[scheme]} need more libraries. Run: .venv/bin/pip install 'securesystemslib[{extra}]'"
        ) from error


def _imported(scheme: str, rest: str, secrets_handler: Callable[[str], str]) -> SSlibKey:
    """Return the public key of a URI without its scheme, from the token or service."""
    if scheme == "hsm":
        keyid, _, query = rest.partition("?")
        label = re.sub(r"^label=", "", query).replace("+", " ")
        if not keyid.isdecimal():
            raise SignatureRefused("Use hsm:<key id as a number>?label=<label of the token>.")
        return HSMSigner.import_(int(keyid), label or None, secrets_handler)[1]
    if scheme == "awskms":
        return AWSSigner.import_(rest, _SCHEME)[1]
    if scheme == "gcpkms":
        return GCPSigner.import_(rest)[1]
    found = _AZURE_KEY.fullmatch(rest)
    if found is None:
        raise SignatureRefused("Use azurekms://<vault>.vault.azure.net/keys/<name>/<version>.")
    return AzureSigner.import_(found["vault"], found["name"])[1]


def _calling(call: Callable[[], T]) -> T:
    """Return what a library returns. Its errors have many types, of libraries that need not be installed."""
    try:
        return call()
    except (UnsupportedLibraryError, LifecycleError):
        raise
    except Exception as error:  # each service's library has its own errors, with no class in common
        if type(error).__name__ in _PIN_ERRORS:
            raise SignerRefused(f"The token does not accept the PIN: {_words(error)}") from error
        raise SignerUnavailable(f"The signing key cannot be used: {_words(error)}") from error


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}."


def _on_p256(pem: str) -> PublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise SignatureRefused("The public key of the signing key cannot be read.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureRefused("Use an ECDSA key on the curve P-256.")
    return key


def _vault(rest: str) -> KeySigner:
    """Return a signer over Vault's transit engine. securesystemslib signs there with Ed25519 only."""
    found = _VAULT_KEY.fullmatch(rest.removeprefix("//"))
    if found is None:
        raise SignatureRefused("Use hashivault:<name of the key>, or hashivault:<mount>/<name>.")
    if not settings.VAULT_ADDR or not settings.VAULT_TOKEN:
        raise SignatureRefused("Set VAULT_ADDR and VAULT_TOKEN to sign with a key in Vault.")
    mount, name = found["mount"] or "transit", found["name"]
    key = _ask_vault("GET", f"{mount}/keys/{name}")
    versions = key.get("keys")
    newest = versions.get(str(key.get("latest_version"))) if isinstance(versions, dict) else None
    if key.get("type") != "ecdsa-p256" or not isinstance(newest, dict):
        raise SignatureRefused("The key in Vault must be of the type ecdsa-p256.")
    version = key["latest_version"]

    def send(message: bytes) -> bytes:
        body = {
            "input": base64.b64encode(message).decode(),
            "hash_algorithm": "sha2-256",
            "marshaling_algorithm": "asn1",
            "key_version": version,
        }
        text = str(_ask_vault("POST", f"{mount}/sign/{name}", body).get("signature", ""))
        try:
            return base64.b64decode(text.rpartition(":")[2], validate=True)
        except ValueError as error:
            raise SignerUnavailable("Vault returned no signature.") from error

    return RemoteSigner(_on_p256(str(newest.get("public_key", ""))), send)


def _ask_vault(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return `data` of Vault's answer (https://developer.hashicorp.com/vault/api-docs/secret/transit).

    Raises SignerUnavailable, or SignatureRefused for what no retry heals.
    """
    headers = {"X-Vault-Token": settings.VAULT_TOKEN, "Content-Type": "application/json"}
    if settings.VAULT_NAMESPACE:
        headers["X-Vault-Namespace"] = settings.VAULT_NAMESPACE
    client = HttpClient()
    try:
        content = json.dumps(body).encode() if body is not None else None
        answer = client.request(method, f"{settings.VAULT_ADDR}/v1/{path}", headers=headers, content=content)
    except Unreachable as error:
        raise SignerUnavailable(f"Vault did not answer. {error.message}") from error
    except ForbiddenDestination as error:
        raise SignatureRefused(f"Vault's address must be in OUTBOUND_ALLOW. {error.message}") from error
    except (UpstreamError, LimitExceeded) as error:
        raise SignerUnavailable(f"Vault did not answer as expected. {error.message}") from error
    finally:
        client.close()
    if answer.status in {400, 403, 404}:
        raise SignatureRefused(f"Vault refused the request for the signing key ({answer.status}).")
    try:
        data = json.loads(answer.body)["data"] if answer.status == 200 else None
    except (ValueError, KeyError, TypeError):
        data = None
    if not isinstance(data, dict):
        raise SignerUnavailable(f"Vault did not answer as expected ({answer.status}).")
    return data
