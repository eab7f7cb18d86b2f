"""Keyless signatures, verified offline: a short-lived certificate, a log, and a trusted root.

Bundles of today go to the `sigstore` library. It does not take older forms: entries with a promise and no checkpoint,
entries of the kind intoto, and cosign's annotations. Those are verified here, by the same steps
(https://docs.sigstore.dev/about/threat-model/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from lifecycle.signatures.bundles import Bundle, check_message
from lifecycle.signatures.certificates import chain_at, check_code_signing, check_sct, identity_of
from lifecycle.signatures.constants import BUNDLE_V01
from lifecycle.signatures.dsse import Envelope, check_statement, statement_of
from lifecycle.signatures.keys import verifying_key
from lifecycle.signatures.logs import LogEntry, check_body, verify_entry
from lifecycle.signatures.roots import TrustedRoot
from lifecycle.signatures.timestamps import verify_timestamp
from lifecycle.signatures.types import Artifact, SignatureRefused, Signer, Verified

_BY_LIBRARY: Final = frozenset({"hashedrekord 0.0.1", "hashedrekord 0.0.2", "dsse 0.0.1"})


def verify_keyless(bundle: Bundle, root: TrustedRoot, artifact: Artifact) -> Verified:
    """Return who signed the artifact (or an in-toto statement about it), and when; raises SignatureRefused.

    Any identity that the root vouches for is returned. The caller decides whether it is one that it trusts.
    """
    if bundle.certificate is None:
        raise SignatureRefused("The bundle is signed with a key. Name the key to verify it.")
    if len(bundle.entries) != 1:
        raise SignatureRefused("A keyless bundle must have exactly one log entry.")
    entry = bundle.entries[0]
    has_checkpoint = entry.proof is not None and entry.proof.checkpoint != ""
    if has_checkpoint and entry.kind in _BY_LIBRARY:
        from lifecycle.signatures import library  # noqa: PLC0415 -- its import takes seconds, and few processes need it

        signed_at = library.verify_bundle(bundle, root, artifact)
        if signed_at is not None:  # the library does not look at the periods of authorities
            _chain(bundle.certificate, root, signed_at)
    else:
        signed_at = verify_material(
            bundle.certificate,
            entry,
            root,
            timestamps=bundle.timestamps,
            signature=bundle.signature,
            needs_proof=bundle.media_type != BUNDLE_V01,
        )
        check_body(
            entry,
            verifiers=(bundle.certificate.public_bytes(Encoding.DER),),
            envelope=bundle.envelope,
            signature=bundle.signature,
            artifact=artifact,
        )
        _check_signature(bundle, artifact)
    signer = identity_of(bundle.certificate)
    return replace(_content(bundle.envelope, artifact), signer=signer, signed_at=signed_at)


def verify_material(
    certificate: Certificate,
    entry: LogEntry,
    root: TrustedRoot,
    *,
    timestamps: Sequence[bytes],
    signature: bytes,
    needs_proof: bool,
) -> datetime:
    """Check the signer's certificate and the log entry against the root; return the proven time of the signature.

    The certificate must have been valid at every proven time, and there must be one. Raises SignatureRefused.
    """
    moments = [verify_timestamp(stamp, signature, root.timestamp_authorities) for stamp in timestamps]
    added_at = verify_entry(entry, root.logs, needs_proof=needs_proof)
    moments += [added_at] if added_at is not None else []
    if not moments:
        raise SignatureRefused("Nothing proves when the signature was made.")
    chain: list[Certificate] = []
    for moment in moments:
        chain = _chain(certificate, root, moment)
    check_sct(certificate, chain, root.ct_logs)
    check_code_signing(certificate)
    return moments[0]


def _chain(certificate: Certificate, root: TrustedRoot, moment: datetime) -> list[Certificate]:
    anchors = [
        each for authority in root.authorities if authority.period.covers(moment) for each in authority.certificates
    ]
    return chain_at(certificate, anchors, moment)


def _check_signature(bundle: Bundle, artifact: Artifact) -> None:
    if bundle.certificate is None:
        raise SignatureRefused("The bundle has no certificate.")
    key = verifying_key(bundle.certificate.public_key())
    if bundle.envelope is not None:
        key.check(bundle.signature, bundle.envelope.signed)
    else:
        check_message(bundle.message, key, artifact)


def _content(envelope: Envelope | None, artifact: Artifact) -> Verified:
    if envelope is None:
        return Verified(Signer())
    statement = check_statement(statement_of(envelope), artifact.digest.text)
    return Verified(Signer(), statement=statement, payload=envelope.payload)
