"""Secrets at rest: AES-256-GCM, bound to the table, row and field that hold them, with the id of the key.

A sealed value that is copied to another row, or changed by one bit, cannot be read. FIELD_KEY seals. FIELD_KEYS_OLD
still read what was sealed before, until `manage.py rotate_keys` has sealed everything with FIELD_KEY.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db.models import Model

_FORMAT: Final = b"GD1"  # then: key id, nonce, ciphertext with tag
_KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_FERNET: Final = b"gAAAA"  # values of releases before this format
_FIELDS: Final[list[tuple[type[Model], str]]] = []  # every field that holds a sealed secret


class Unreadable(ValueError):
    """A sealed value cannot be read: its key is missing, it was changed, or it belongs to another row."""


def register_field(model: type[Model], field: str) -> None:
    """Register a field that holds sealed secrets, below its model, so that `rotate_keys` finds it."""
    _FIELDS.append((model, field))


def registered_fields() -> list[tuple[type[Model], str]]:
    """Return every (model, field) that holds sealed secrets."""
    return list(_FIELDS)


def seal(secret: str, row: Model, field: str) -> bytes:
    """Return `secret` sealed for one field of one stored row; b"" for an empty secret. Raises ValueError without id."""
    if not secret:
        return b""
    key = _keys()[0]
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _FORMAT + _id_of(key) + nonce + AESGCM(key).encrypt(nonce, secret.encode(), _place(row, field))


def unseal(sealed: bytes, row: Model, field: str) -> str:
    """Return the secret that `seal` sealed for this field of this row; "" for b"". Raises Unreadable."""
    if not sealed:
        return ""
    try:
        if sealed.startswith(_FERNET):
            return _unseal_fernet(sealed)
        if not sealed.startswith(_FORMAT):
            raise Unreadable("The value is not sealed.")
        start = len(_FORMAT)
        key_id, rest = sealed[start : start + _KEY_ID_BYTES], sealed[start + _KEY_ID_BYTES :]
        key = next((key for key in _keys() if _id_of(key) == key_id), None)
        if key is None:
            raise Unreadable(f"The key {key_id.hex()} is neither FIELD_KEY nor in FIELD_KEYS_OLD.")
        return AESGCM(key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _place(row, field)).decode()
    except (InvalidTag, UnicodeDecodeError) as error:
        raise Unreadable("The value was changed, or belongs to another row.") from error


def is_current(sealed: bytes) -> bool:
    """Return whether the value is empty, or sealed in today's format with FIELD_KEY."""
    return not sealed or sealed.startswith(_FORMAT + _id_of(_keys()[0]))


def current_key_id() -> str:
    """Return the id of FIELD_KEY in hexadecimal. It does not reveal the key."""
    return _id_of(_keys()[0]).hex()


def _place(row: Model, field: str) -> bytes:
    if row.pk is None:
        raise ValueError("Save the row first: a sealed value is bound to its id.")
    return f"{row._meta.db_table}|{row.pk}|{field}".encode()


def _configured() -> list[str]:
    return [settings.FIELD_KEY, *settings.FIELD_KEYS_OLD]


def _keys() -> list[bytes]:
    """Return the keys, the current one first. They are derived, so that Fernet and AES-GCM never share a key."""
    return [
        HKDF(algorithm=SHA256(), length=32, salt=None, info=b"gravingdock field key 1").derive(_raw(text))
        for text in _configured()
    ]


def _raw(text: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 32:
        raise Unreadable("FIELD_KEY is not 32 bytes in URL-safe base64.")
    return key


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"id" + key).digest()[:_KEY_ID_BYTES]


def _unseal_fernet(sealed: bytes) -> str:
    for text in _configured():
        try:
            return Fernet(text).decrypt(sealed).decode()
        except InvalidToken:
            continue
    raise Unreadable("The value was sealed with a key that is neither FIELD_KEY nor in FIELD_KEYS_OLD.")
