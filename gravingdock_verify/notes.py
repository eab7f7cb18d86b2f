"""Signed notes and checkpoints: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_NUMBER = re.compile(r".*/audit(?:/([0-9]{1,9}))?")


class BadNote(ValueError):
    """A note or a key has another form, or its signature does not match."""


@dataclass(frozen=True)
class Checkpoint:
    """A signed head of a log."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True)
class Key:
    """A public key of a log, spelled `name+id+key`."""

    name: str
    raw: bytes  # 32 bytes, Ed25519

    @classmethod
    def parse(cls, text: str) -> Key:
        """Return the key; raises BadNote."""
        try:
            name, key_id, encoded = text.strip().split("+", 2)
            value = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise BadNote("A key has the form name+id+key.") from None
        key = cls(name, value[1:])
        if value[:1] != b"\x01" or len(key.raw) != 32 or key.id.hex() != key_id:
            raise BadNote("The key is not Ed25519, or its id does not belong to it.")
        return key

    @property
    def id(self) -> bytes:
        """The first four bytes of the hash over the name and the key."""
        return hashlib.sha256(self.name.encode() + b"\n\x01" + self.raw).digest()[:4]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the key without its name: the same for all logs that it signs."""
        return hashlib.sha256(self.raw).hexdigest()

    def checkpoint(self, note: str) -> Checkpoint:
        """Return the checkpoint in a note that this key signed; raises BadNote."""
        text, separator, signatures = note.rpartition("\n\n")
        if not separator or not signatures.endswith("\n"):
            raise BadNote("It is not a signed note.")
        text += "\n"
        is_signed = False
        for line in signatures[:-1].split("\n"):
            found = _LINE.fullmatch(line)
            if found is None:
                raise BadNote("It is not a signed note.")
            try:
                value = base64.b64decode(found[2], validate=True)
            except binascii.Error:
                raise BadNote("It is not a signed note.") from None
            if found[1] != self.name or value[:4] != self.id:
                continue  # by somebody else
            try:
                Ed25519PublicKey.from_public_bytes(self.raw).verify(value[4:], text.encode())
            except InvalidSignature:
                raise BadNote("Its signature does not match.") from None
            is_signed = True
        if not is_signed:
            raise BadNote("It is not signed by the key of the log.")
        return parse_checkpoint(text)


def number_of(origin: str) -> int:
    """Return the number of a log from its name: 1 for `host/audit`, 2 for `host/audit/2`; 0 for another name."""
    found = _NUMBER.fullmatch(origin)
    return int(found[1] or 1) if found is not None else 0


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint of a note's text; raises BadNote."""
    lines = text.split("\n")
    try:
        checkpoint = Checkpoint(lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True))
    except (ValueError, IndexError, binascii.Error):
        raise BadNote("It is not a checkpoint.") from None
    if not checkpoint.origin or str(checkpoint.size) != lines[1] or len(checkpoint.root) != 32:
        raise BadNote("It is not a checkpoint.")
    return checkpoint
