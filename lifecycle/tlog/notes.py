"""Signed notes with Ed25519, and checkpoints: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lifecycle.tlog.tree import HASH_BYTES

NOTE_MAX_BYTES: Final = 100_000
_ED25519: Final = b"\x01"
_SIGNATURE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_PROOF: Final = "c2sp.org/tlog-proof@v1"


class NoteRefused(ValueError):
    """A note or a key has another form, or its signature does not match."""


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name, spelled `name+id+key`."""

    name: str
    key: Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key; raises NoteRefused for any other text."""
        try:
            name, key_id, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
            found = cls(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
        except (ValueError, binascii.Error) as error:
            raise NoteRefused("Not a verifier key of the form name+id+key.") from error
        if raw[:1] != _ED25519 or found.key_id.hex() != key_id:
            raise NoteRefused("The verifier key is not Ed25519, or its id does not belong to it.")
        return found

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of the hash over name and key."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + _raw(self.key)).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + _raw(self.key)).decode()}"

    def text_of(self, note: str) -> str:
        """Return the text of a note that this key signed; raises NoteRefused. Signatures of others are ignored."""
        text, separator, signatures = note.rpartition("\n\n")
        if not separator or len(note.encode()) > NOTE_MAX_BYTES or not signatures.endswith("\n"):
            raise NoteRefused("Not a signed note.")
        text += "\n"
        is_signed = False
        for line in signatures[:-1].split("\n"):
            found = _SIGNATURE.fullmatch(line)
            if found is None:
                raise NoteRefused("Not a signed note.")
            try:
                raw = base64.b64decode(found[2], validate=True)
            except binascii.Error as error:
                raise NoteRefused("Not a signed note.") from error
            if found[1] != self.name or raw[:4] != self.key_id:
                continue
            try:
                self.key.verify(raw[4:], text.encode())
            except InvalidSignature as error:
                raise NoteRefused("The signature does not match the note.") from error
            is_signed = True
        if not is_signed:
            raise NoteRefused("The note is not signed by this key.")
        return text


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its origin, its size, and the root of its tree."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the checkpoint in the text of a note; raises NoteRefused."""
        lines = text.split("\n")
        try:
            origin, size, root = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
        except (ValueError, IndexError, binascii.Error) as error:
            raise NoteRefused("Not a checkpoint.") from error
        if not origin or str(size) != lines[1] or size < 0 or len(root) != HASH_BYTES or lines[-1] != "":
            raise NoteRefused("Not a checkpoint.")
        return cls(origin, size, root)

    def text(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def signed(self, key: Ed25519PrivateKey) -> str:
        """Return the note: the text and a signature in the name of the origin."""
        text = self.text()
        verifier = VerifierKey(self.origin, key.public_key())
        signature = base64.b64encode(verifier.key_id + key.sign(text.encode())).decode()
        return f"{text}\n— {self.origin} {signature}\n"


def proof_text(index: int, hashes: list[bytes], note: str) -> str:
    """Return a proof that an entry is in the log of the checkpoint `note`: https://c2sp.org/tlog-proof."""
    lines = [_PROOF, f"index {index}", *(base64.b64encode(value).decode() for value in hashes)]
    return "\n".join(lines) + f"\n\n{note}"
