"""Limits of trusted sources and of stored signatures."""

from __future__ import annotations

from typing import Final

PLACES_MAX: Final = 50  # patterns of one source
SIGNERS_MAX: Final = 50  # keys and identities of one source
SOURCES_MAX: Final = 1000

OBJECTS_MAX: Final = 200  # signatures and attestations read for one image; the rest is counted as a problem
DOCUMENT_MAX_BYTES: Final = 16 * 1024 * 1024  # one bundle, envelope or payload that anybody may have pushed
# One predicate that we sign. Base64 makes 62 MiB of it, and a bundle has at most 64 (signatures.constants). Cosign v3
# reads bundles of any size.
SIGNED_MAX_BYTES: Final = 46 * 1024 * 1024
PREDICATE_MAX_BYTES: Final = 256 * 1024  # a larger predicate is verified and not kept; the registry has it
KEYS_ACTIVE_MAX: Final = 2  # signing keys: the old one and the new one, while verifiers learn the new one
# Where the private part of a signing key can be, by the scheme of its URI (trust/signers.py).
KEY_PLACES: Final = {
    "": "Gravingdock",
    "env": "environment",
    "file": "file",
    "hsm": "PKCS#11 token",
    "awskms": "AWS KMS",
    "gcpkms": "Google Cloud KMS",
    "azurekms": "Azure Key Vault",
    "hashivault": "HashiCorp Vault",
}
RECHECKED_AT_ONCE: Final = 200  # images per round of the sweep
