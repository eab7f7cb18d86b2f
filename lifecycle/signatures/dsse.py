"""DSSE envelopes: a payload, its type, and signatures over both (PAE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lifecycle.signatures.constants import IN_TOTO, STATEMENT_SUBJECTS_MAX, STATEMENT_TYPES
from lifecycle.signatures.keys import VerifyingKey
from lifecycle.signatures.reading import get_bytes, get_list, get_text, json_object, only
from lifecycle.signatures.types import SignatureRefused, Signer, Statement, Verified

_SIGNATURES_MAX = 10


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. Nothing in it is verified yet; key ids are dropped, because nothing proves them."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed(self) -> bytes:
        """The bytes that the signatures are over."""
        return pae(self.payload_type, self.payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload and its type."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse_envelope(content: bytes) -> Envelope:
    """Return the envelope in a JSON document; raises SignatureRefused."""
    return read_envelope(json_object(content, "envelope"))


def read_envelope(value: dict[str, Any]) -> Envelope:
    """Return the envelope in a parsed JSON object; raises SignatureRefused."""
    where = "the envelope"
    only(value, {"payload", "payloadType", "signatures"}, "The envelope")
    entries = get_list(value, "signatures", where, limit=_SIGNATURES_MAX)
    for entry in entries:
        only(entry, {"sig", "keyid"}, "A signature of the envelope")
    signatures = tuple(get_bytes(entry, "sig", where) for entry in entries)
    if not signatures:
        raise SignatureRefused("The envelope has no signature.")
    return Envelope(get_text(value, "payloadType", where), get_bytes(value, "payload", where), signatures)


def verify_envelope(envelope: Envelope, key: VerifyingKey) -> Verified:
    """Return what the envelope says when `key` signed it; raises SignatureRefused."""
    reason: SignatureRefused | None = None
    for signature in envelope.signatures:
        try:
            key.check(signature, envelope.signed)
        except SignatureRefused as error:
            reason = error
        else:
            return Verified(Signer(key_fingerprint=key.fingerprint), None, statement_of(envelope), envelope.payload)
    raise reason or SignatureRefused("The envelope has no signature.")


def statement_of(envelope: Envelope) -> Statement | None:
    """Return the in-toto statement in the payload, parsed from exactly the signed bytes; None for other payloads."""
    if envelope.payload_type != IN_TOTO:
        return None
    return parse_statement(envelope.payload)


def parse_statement(content: bytes) -> Statement:
    """Return an in-toto statement; raises SignatureRefused. Its names and unknown fields are ignored.

    A statement without a predicate type has "", which no caller that asks for a type accepts.
    """
    value = json_object(content, "statement")
    if value.get("_type") not in STATEMENT_TYPES:
        raise SignatureRefused("The payload is no in-toto statement of version 1 or 0.1.")
    subjects = get_list(value, "subject", "the statement", limit=STATEMENT_SUBJECTS_MAX)
    if not subjects:
        raise SignatureRefused("The statement names no subject.")
    digests = tuple(_digests(subject) for subject in subjects)
    predicate_type = value.get("predicateType", "")
    if not isinstance(predicate_type, str):
        raise SignatureRefused("The statement's predicateType is not a text.")
    return Statement(predicate_type, digests, value.get("predicate"))


def _digests(subject: dict[str, Any]) -> dict[str, str]:
    digests = subject.get("digest")
    if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
        raise SignatureRefused("A subject of the statement has no digest.")
    return digests


def check_statement(statement: Statement | None, digest: str, predicate_type: str | None = None) -> Statement:
    """Return the statement if it names `digest`, and has the predicate type if one is given.

    Raises SignatureRefused. A statement about other content, or of another kind, proves nothing here.
    """
    if statement is None:
        raise SignatureRefused(f"The envelope's payload is not {IN_TOTO}.")
    if not statement.names(digest):
        raise SignatureRefused("The statement is about other content: no subject has this digest.")
    if predicate_type is not None and statement.predicate_type != predicate_type:
        raise SignatureRefused(f"The statement is a {statement.predicate_type[:200]}, not a {predicate_type}.")
    return statement
