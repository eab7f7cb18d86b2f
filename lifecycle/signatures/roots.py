"""Trusted roots of sigstore: the authorities and logs that vouch for keyless signatures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from cryptography.x509 import Certificate, load_der_x509_certificate

from lifecycle.signatures.constants import CERTIFICATES_MAX, MIB
from lifecycle.signatures.keys import VerifyingKey, load_der_key
from lifecycle.signatures.reading import get_bytes, get_list, get_object, json_object, parse_time
from lifecycle.signatures.types import SignatureRefused

ROOT_MAX_BYTES: Final = MIB
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
_ENTRIES_MAX: Final = 100
_PUBLIC: Final = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
_STAGING: Final = "https%3A%2F%2Ftuf-repo-cdn.sigstage.dev"


@dataclass(frozen=True, slots=True)
class Period:
    """When something was valid, both ends included. A missing start makes it never valid: sigstore's protobuf specs."""

    start: datetime | None
    end: datetime | None

    def covers(self, moment: datetime) -> bool:
        return self.start is not None and self.start <= moment and (self.end is None or moment <= self.end)


@dataclass(frozen=True, slots=True)
class Log:
    """A transparency log, or a certificate transparency log."""

    key_id: bytes  # SHA-256 of the key
    key: VerifyingKey
    period: Period


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, or a time stamp authority: its chain from the issuing certificate to the root."""

    certificates: tuple[Certificate, ...]
    period: Period


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """A parsed trusted root, and its JSON for the `sigstore` library."""

    text: str
    logs: tuple[Log, ...]
    ct_logs: tuple[Log, ...]
    authorities: tuple[Authority, ...]
    timestamp_authorities: tuple[Authority, ...]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@lru_cache(maxsize=64)
def parse_trusted_root(text: str) -> TrustedRoot:
    """Return the trusted root in a `trusted_root.json`; raises SignatureRefused."""
    value = json_object(text.encode(), "trusted root", max_bytes=ROOT_MAX_BYTES)
    if value.get("mediaType") != _MEDIA_TYPE:
        raise SignatureRefused(f"The trusted root's mediaType is not {_MEDIA_TYPE}.")
    root = TrustedRoot(
        text,
        _logs(value, "tlogs"),
        _logs(value, "ctlogs"),
        _authorities(value, "certificateAuthorities"),
        _authorities(value, "timestampAuthorities"),
    )
    if not root.logs or not root.authorities:
        raise SignatureRefused("The trusted root needs at least one log and one certificate authority.")
    return root


@lru_cache(maxsize=2)
def shipped_root(*, is_staging: bool = False) -> TrustedRoot:
    """Return the trusted root that ships with the `sigstore` library, of the public instance. Makes no request."""
    folder = resources.files("sigstore._store").joinpath(_STAGING if is_staging else _PUBLIC)
    return parse_trusted_root(json.dumps(json.loads(folder.joinpath("trusted_root.json").read_text())))


def _logs(value: dict[str, Any], key: str) -> tuple[Log, ...]:
    logs = []
    for entry in get_list(value, key, "the trusted root", limit=_ENTRIES_MAX):
        public_key = get_object(entry, "publicKey", f"An entry of {key}")
        try:
            loaded = load_der_key(get_bytes(public_key, "rawBytes", key))
        except SignatureRefused:
            continue  # a kind of key from the future: its entries do not verify, the others do
        key_id = get_bytes(get_object(entry, "logId", f"An entry of {key}"), "keyId", key)
        logs.append(Log(key_id, loaded, _period(public_key)))
    return tuple(logs)


def _authorities(value: dict[str, Any], key: str) -> tuple[Authority, ...]:
    authorities = []
    for entry in get_list(value, key, "the trusted root", limit=_ENTRIES_MAX):
        chain = get_object(entry, "certChain", f"An entry of {key}")
        rows = get_list(chain, "certificates", key, limit=CERTIFICATES_MAX)
        authorities.append(
            Authority(tuple(load_certificate(get_bytes(row, "rawBytes", key)) for row in rows), _period(entry))
        )
    return tuple(authority for authority in authorities if authority.certificates)


def _period(value: dict[str, Any]) -> Period:
    period = value.get("validFor") or {}
    start, end = period.get("start"), period.get("end")
    return Period(
        parse_time(start, "validFor.start") if start else None, parse_time(end, "validFor.end") if end else None
    )


def load_certificate(der: bytes) -> Certificate:
    """Return a certificate from DER; raises SignatureRefused."""
    try:
        return load_der_x509_certificate(der)
    except ValueError as error:
        raise SignatureRefused("A certificate cannot be read.") from error
