"""Entries of Rekor, version 1: the promise to include, the proof of inclusion, and what the entry is about."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from lifecycle.signatures.constants import MIB
from lifecycle.signatures.dsse import Envelope
from lifecycle.signatures.keys import load_public_key
from lifecycle.signatures.reading import (
    at_second,
    decode_base64,
    get_bytes,
    get_list,
    get_number,
    get_object,
    get_text,
    json_object,
    only,
)
from lifecycle.signatures.roots import Log
from lifecycle.signatures.types import Artifact, SignatureRefused

_HASHES_MAX: Final = 64  # levels of a tree with 2**64 leaves
_CHECKPOINT_MAX: Final = 64 * 1024
_SIGNATURE_LINE: Final = re.compile("\N{EM DASH} (\\S+) (\\S+)")
_ENTRY: Final = "the log entry"


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof that an entry is in the log, up to a signed checkpoint."""

    log_index: int
    tree_size: int
    root_hash: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str  # "" when the bundle has none


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A parsed entry. Nothing in it is verified yet."""

    log_index: int
    log_id: bytes
    kind: str  # "hashedrekord 0.0.1"
    integrated_at: int | None  # seconds since 1970; only the promise proves it
    promise: bytes | None  # Signed Entry Timestamp
    proof: Proof | None
    body: bytes


def read_entry(value: dict[str, Any]) -> LogEntry:
    """Return the log entry of a bundle; raises SignatureRefused."""
    only(
        value,
        {
            "logIndex",
            "logId",
            "kindVersion",
            "integratedTime",
            "inclusionPromise",
            "inclusionProof",
            "canonicalizedBody",
        },
        "The log entry",
    )
    kind = value.get("kindVersion")
    promise = value.get("inclusionPromise")
    return LogEntry(
        log_index=get_number(value, "logIndex", _ENTRY),
        log_id=get_bytes(get_object(value, "logId", "The log entry"), "keyId", _ENTRY),
        kind=f"{get_text(kind, 'kind', _ENTRY)} {get_text(kind, 'version', _ENTRY)}" if isinstance(kind, dict) else "",
        integrated_at=get_number(value, "integratedTime", _ENTRY) or None,
        promise=get_bytes(promise, "signedEntryTimestamp", _ENTRY) if isinstance(promise, dict) and promise else None,
        proof=_read_proof(value.get("inclusionProof")),
        body=get_bytes(value, "canonicalizedBody", _ENTRY),
    )


def read_annotation(text: str) -> LogEntry:
    """Return the entry in cosign's annotation `dev.sigstore.cosign/bundle`; raises SignatureRefused."""
    value = json_object(text.encode(), "log annotation", max_bytes=16 * MIB)
    payload = get_object(value, "Payload", "The log annotation")
    body = get_bytes(payload, "body", _ENTRY)
    inner = json_object(body, "log entry")
    try:
        log_id = bytes.fromhex(get_text(payload, "logID", _ENTRY))
    except ValueError as error:
        raise SignatureRefused("The id of the log is not hexadecimal.") from error
    return LogEntry(
        log_index=get_number(payload, "logIndex", _ENTRY),
        log_id=log_id,
        kind=f"{get_text(inner, 'kind', _ENTRY)} {get_text(inner, 'apiVersion', _ENTRY)}",
        integrated_at=get_number(payload, "integratedTime", _ENTRY),
        promise=get_bytes(value, "SignedEntryTimestamp", "The log annotation"),
        proof=None,
        body=body,
    )


def _read_proof(value: Any) -> Proof | None:
    if not value:
        return None
    where = "the inclusion proof"
    if not isinstance(value, dict) or not isinstance(value.get("hashes", []), list):
        raise SignatureRefused("The inclusion proof cannot be read.")
    only(value, {"logIndex", "rootHash", "treeSize", "hashes", "checkpoint"}, "The inclusion proof")
    hashes = value.get("hashes", [])
    if len(hashes) > _HASHES_MAX or not all(isinstance(text, str) for text in hashes):
        raise SignatureRefused("The inclusion proof cannot be read.")
    checkpoint = value.get("checkpoint")
    return Proof(
        log_index=get_number(value, "logIndex", where),
        tree_size=get_number(value, "treeSize", where),
        root_hash=get_bytes(value, "rootHash", where),
        hashes=tuple(decode_base64(text, where) for text in hashes),
        checkpoint=get_text(checkpoint, "envelope", where) if isinstance(checkpoint, dict) and checkpoint else "",
    )


def verify_entry(entry: LogEntry, logs: Sequence[Log], *, needs_proof: bool) -> datetime | None:
    """Check an entry against the trusted `logs`; return when it was added, None when nothing proves that.

    The promise is checked when there is one. The proof is checked when it has a checkpoint, which `needs_proof` makes
    necessary. At least one of both must be there. Raises SignatureRefused.
    """
    log = next((log for log in logs if log.key_id == entry.log_id), None)
    if log is None:
        raise SignatureRefused("The signature is in a log that is not trusted.")
    has_proof = entry.proof is not None and entry.proof.checkpoint != ""
    if needs_proof and not has_proof:
        raise SignatureRefused("The log entry has no inclusion proof with a checkpoint.")
    if entry.proof is not None and has_proof:
        _check_proof(entry.body, entry.proof, log)
    if entry.promise is None or entry.integrated_at is None:
        if not has_proof:
            raise SignatureRefused("The log entry has neither a promise nor a proof of inclusion.")
        return None
    moment = at_second(entry.integrated_at, "The time of the log entry")
    if not log.period.covers(moment):
        raise SignatureRefused("The log was not trusted at the time of the entry.")
    try:
        log.key.check(entry.promise, _promised(entry))
    except SignatureRefused as error:
        raise SignatureRefused("The log's promise of inclusion does not verify.") from error
    return moment


def _promised(entry: LogEntry) -> bytes:
    """Return the bytes that the promise is over: RFC 8785 canonical JSON, all ASCII."""
    from_log = {
        "body": base64.b64encode(entry.body).decode(),
        "integratedTime": entry.integrated_at,
        "logID": entry.log_id.hex(),
        "logIndex": entry.log_index,
    }
    return json.dumps(from_log, sort_keys=True, separators=(",", ":")).encode()


def _check_proof(body: bytes, proof: Proof, log: Log) -> None:
    """Raise SignatureRefused unless the entry is under the root hash that the log signed: RFC 6962 and RFC 9162."""
    if root_from_proof(body, proof) != proof.root_hash:
        raise SignatureRefused("The inclusion proof does not lead from the entry to the root of the log.")
    if len(proof.checkpoint) > _CHECKPOINT_MAX:
        raise SignatureRefused("The checkpoint is too large.")
    text, separator, signatures = proof.checkpoint.rpartition("\n\n")
    lines = text.split("\n")
    if not separator or len(lines) < 3:
        raise SignatureRefused("The checkpoint cannot be read.")
    if lines[1] != str(proof.tree_size) or decode_base64(lines[2], "the checkpoint") != proof.root_hash:
        raise SignatureRefused("The checkpoint is of another tree than the proof.")
    for line in signatures.splitlines():
        found = _SIGNATURE_LINE.fullmatch(line)
        raw = decode_base64(found[2], "the checkpoint") if found else b""
        if raw[:4] == log.key_id[:4]:
            try:
                log.key.check(raw[4:], f"{text}\n".encode())
            except SignatureRefused as error:
                raise SignatureRefused("The checkpoint's signature does not verify.") from error
            return
    raise SignatureRefused("The checkpoint is not signed by the log.")


def root_from_proof(body: bytes, proof: Proof) -> bytes:
    """Return the root hash that a proof leads to: RFC 9162, 2.1.3.2. Raises SignatureRefused for an impossible one."""
    index, last = proof.log_index, proof.tree_size - 1
    if index > last:
        raise SignatureRefused("The log index is not in the tree.")
    computed = hashlib.sha256(b"\0" + body).digest()
    for sibling in proof.hashes:
        if last == 0:
            raise SignatureRefused("The inclusion proof is too long.")
        if index & 1 or index == last:
            computed = hashlib.sha256(b"\1" + sibling + computed).digest()
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            computed = hashlib.sha256(b"\1" + computed + sibling).digest()
        index, last = index >> 1, last >> 1
    if last != 0:
        raise SignatureRefused("The inclusion proof is too short.")
    return computed


def check_body(
    entry: LogEntry,
    *,
    verifiers: Sequence[bytes],
    envelope: Envelope | None,
    signature: bytes,
    artifact: Artifact,
    raw_envelope: bytes = b"",
) -> None:
    """Raise SignatureRefused unless the entry is about this signature, content and signer.

    `verifiers` are the DER forms of the signer's certificate and key that the entry may name. Without this check, a
    true entry about anything else could stand in (CVE-2022-36056, CVE-2026-22703).
    """
    body = json_object(entry.body, "log entry")
    if f"{body.get('kind')} {body.get('apiVersion')}" != entry.kind:
        raise SignatureRefused("The log entry is of another kind than it says.")
    spec = get_object(body, "spec", "The log entry")
    if entry.kind == "hashedrekord 0.0.1":
        payload = Artifact.of(envelope.signed) if envelope is not None else artifact
        _check_hashedrekord(spec, verifiers, signature, payload)
    elif entry.kind == "hashedrekord 0.0.2":
        payload = Artifact.of(envelope.signed) if envelope is not None else artifact
        _check_hashedrekord_v2(get_object(spec, "hashedRekordV002", "The log entry"), verifiers, signature, payload)
    elif entry.kind == "dsse 0.0.1" and envelope is not None:
        pairs = [
            (_decoded(row, "signature"), _decoded(row, "verifier"))
            for row in get_list(spec, "signatures", _ENTRY, limit=10)
        ]
        _check_hash(spec, "payloadHash", envelope.payload)
        _check_pairs(pairs, verifiers, signature)
    elif entry.kind == "intoto 0.0.2" and envelope is not None:
        content = get_object(spec, "content", "The log entry")
        inner = get_object(content, "envelope", "The log entry")
        pairs = [
            # The signature is base64 of its base64, because the log keeps the envelope's text as bytes.
            (decode_base64(_decoded(row, "sig").decode(errors="replace"), _ENTRY), _decoded(row, "publicKey"))
            for row in get_list(inner, "signatures", _ENTRY, limit=10)
        ]
        if inner.get("payloadType") != envelope.payload_type:
            raise SignatureRefused("The log entry is about a payload of another type.")
        _check_hash(content, "payloadHash", envelope.payload)
        _check_pairs(pairs, verifiers, signature)
    elif entry.kind == "intoto 0.0.1" and envelope is not None and raw_envelope:
        content = get_object(spec, "content", "The log entry")
        _check_hash(content, "hash", raw_envelope)  # of the whole envelope, so the signature is covered
        _check_verifier(_decoded(spec, "publicKey"), verifiers)
    else:
        raise SignatureRefused(f"A log entry of the kind {entry.kind[:40]!r} cannot prove this signature.")


def _check_hashedrekord(spec: dict[str, Any], verifiers: Sequence[bytes], signature: bytes, artifact: Artifact) -> None:
    holder = get_object(spec, "signature", "The log entry")
    if get_bytes(holder, "content", _ENTRY) != signature:
        raise SignatureRefused("The log entry is about another signature.")
    _check_verifier(_decoded(get_object(holder, "publicKey", "The log entry"), "content"), verifiers)
    named = get_object(get_object(spec, "data", "The log entry"), "hash", "The log entry")
    known = artifact.digests.get(str(named.get("algorithm")))
    if known is None or known.hex() != named.get("value"):
        raise SignatureRefused("The log entry is about other content.")


def _check_hashedrekord_v2(
    spec: dict[str, Any], verifiers: Sequence[bytes], signature: bytes, artifact: Artifact
) -> None:
    holder = get_object(spec, "signature", "The log entry")
    verifier = get_object(holder, "verifier", "The log entry")
    if get_bytes(holder, "content", _ENTRY) != signature:
        raise SignatureRefused("The log entry is about another signature.")
    named = verifier.get("publicKey") or verifier.get("x509Certificate")
    if not isinstance(named, dict) or get_bytes(named, "rawBytes", _ENTRY) not in verifiers:
        raise SignatureRefused("The log entry names another signer.")
    data = get_object(spec, "data", "The log entry")
    known = artifact.digests.get(str(data.get("algorithm")).lower().replace("sha2_", "sha"))
    if known is None or known != get_bytes(data, "digest", _ENTRY):
        raise SignatureRefused("The log entry is about other content.")


def _check_hash(holder: dict[str, Any], key: str, content: bytes) -> None:
    named = get_object(holder, key, "The log entry")
    if named.get("algorithm") != "sha256" or named.get("value") != hashlib.sha256(content).hexdigest():
        raise SignatureRefused("The log entry is about other content.")


def _check_pairs(pairs: Sequence[tuple[bytes, bytes]], verifiers: Sequence[bytes], signature: bytes) -> None:
    if len(pairs) != 1 or pairs[0][0] != signature:
        raise SignatureRefused("The log entry is about another signature.")
    _check_verifier(pairs[0][1], verifiers)


def _check_verifier(pem: bytes, verifiers: Sequence[bytes]) -> None:
    """Raise SignatureRefused unless the PEM in the entry is one of the signer's certificate and key."""
    try:
        if b"BEGIN CERTIFICATE" in pem:
            der = load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        else:
            der = load_public_key(pem).key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        raise SignatureRefused("The log entry names a signer that cannot be read.") from error
    if der not in verifiers:
        raise SignatureRefused("The log entry names another signer.")


def _decoded(value: dict[str, Any], key: str) -> bytes:
    return get_bytes(value, key, _ENTRY)
