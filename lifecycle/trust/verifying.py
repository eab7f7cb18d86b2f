"""Read the signatures of an image from a registry, and verify them against trusted signers. No query."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from lifecycle.core.errors import LimitExceeded, Malformed, RegistryRefused
from lifecycle.core.types import Digest
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.manifests import clean, parse_links, parse_manifest
from lifecycle.oci.types import Descriptor, ManifestContent
from lifecycle.signatures.bundles import Bundle, parse_bundle, verify_with_key
from lifecycle.signatures.constants import (
    BUNDLE_TYPES,
    COSIGN_SIGN,
    DSSE_ENVELOPE,
    IN_TOTO,
    NOTATION_ARTIFACT,
    NOTATION_COSE,
    NOTATION_JWS,
    SIMPLE_SIGNING,
)
from lifecycle.signatures.cosign import LegacySignature, verify_legacy_keyless, verify_legacy_with_key
from lifecycle.signatures.dsse import parse_envelope, parse_statement, statement_of
from lifecycle.signatures.keyless import verify_keyless
from lifecycle.signatures.notation import verify_jws
from lifecycle.signatures.provenance import read_provenance
from lifecycle.signatures.roots import TrustedRoot, shipped_root
from lifecycle.signatures.types import Artifact, SignatureRefused, Statement, Verified
from lifecycle.trust.constants import DOCUMENT_MAX_BYTES, OBJECTS_MAX, PREDICATE_MAX_BYTES
from lifecycle.trust.types import Candidate, Document, Judged

PLAIN_SBOM: Final = "sbom"  # a document as it is, that `oras attach` or syft put there; nobody signed it
SBOM_TYPES: Final = frozenset({
    "application/vnd.cyclonedx+json", "application/vnd.cyclonedx+xml", "application/spdx+json", "text/spdx+json",
})  # fmt: skip
_BUILDKIT: Final = ("vnd.docker.reference.type", "attestation-manifest")


def read_documents(
    client: RegistryClient, repository: str, top: ManifestContent, alive: Callable[[], None]
) -> list[Document]:
    """Return the signatures and attestations of one manifest, in the order of the registry, and that there are SBOMs.

    They come from its referrers, the tags `.sig` and `.att`, and BuildKit's entries in an index. A referrer counts only
    if it names the manifest as its subject itself. Raises LimitExceeded beyond OBJECTS_MAX, RegistryUnavailable,
    RegistryRefused.
    """
    return list(iter_documents(client, repository, top, alive, with_sboms=True))


def iter_documents(
    client: RegistryClient,
    repository: str,
    top: ManifestContent,
    alive: Callable[[], None],
    *,
    max_bytes: int = DOCUMENT_MAX_BYTES,
    with_sboms: bool = False,
    known: Collection[str] = (),
) -> Iterator[Document]:
    """Yield what `read_documents` returns, one after the other, each up to `max_bytes`, without `known` objects.

    With `with_sboms`, SBOMs that are attached as they are come too, without their content.
    """
    count = 0
    for manifest in _holders(client, repository, top):
        alive()
        for document in _documents_in(client, repository, manifest, max_bytes, known):
            if document.format == PLAIN_SBOM and not with_sboms:
                continue
            count += 1
            if count > OBJECTS_MAX:
                raise LimitExceeded(f"The image has more than {OBJECTS_MAX} signatures and attestations.")
            yield document


def _holders(client: RegistryClient, repository: str, top: ManifestContent) -> Iterator[ManifestContent]:
    for entry in client.referrers(repository, top.digest):
        if not entry.is_manifest:
            continue
        manifest = _manifest(client, repository, entry.digest.text)
        if manifest is not None and parse_links(manifest).subject == top.digest:
            yield manifest
    for suffix in (".sig", ".att"):
        manifest = _manifest(client, repository, fallback_tag(top.digest) + suffix)
        if manifest is not None and not manifest.is_index:
            yield manifest
    if top.is_index:
        for entry in parse_links(top).manifests:
            if entry.annotations.get(_BUILDKIT[0]) == _BUILDKIT[1]:
                manifest = _manifest(client, repository, entry.digest.text)
                if manifest is not None:
                    yield manifest


def _manifest(client: RegistryClient, repository: str, reference: str) -> ManifestContent | None:
    try:
        return client.get_manifest(repository, reference)
    except ManifestUnknown:
        return None


def _documents_in(
    client: RegistryClient, repository: str, manifest: ManifestContent, max_bytes: int, known: Collection[str]
) -> Iterator[Document]:
    """Yield the signatures in one manifest. A manifest of odd shape, or of another kind, holds none."""
    try:
        document = parse_manifest(manifest)
    except Malformed:
        return
    for position, layer in enumerate(document.layers):
        kind = _format_of(layer, document.artifact_type)
        if not kind or layer.digest.text in known:
            continue
        content, problem = b"", ""
        try:
            content = b"" if kind == PLAIN_SBOM else client.get_blob(repository, layer.digest, max_bytes=max_bytes)
        except LimitExceeded:
            problem = f"It is larger than {max_bytes} bytes, so it was not read."
        except RegistryRefused as error:
            problem = error.message  # this one is refused; the others still count
        annotations = dict(layer.annotations)
        yield Document(kind, content, manifest.digest.text, layer.digest.text, position, annotations, problem)


def _format_of(layer: Descriptor, artifact_type: str) -> str:
    if layer.media_type in BUNDLE_TYPES:
        return "bundle"
    if layer.media_type == SIMPLE_SIGNING:
        return "simplesigning"
    if layer.media_type == DSSE_ENVELOPE:
        return "dsse"
    if artifact_type == NOTATION_ARTIFACT and layer.media_type in {NOTATION_JWS, NOTATION_COSE}:
        return "notation"
    if layer.media_type in SBOM_TYPES:
        return PLAIN_SBOM
    return "buildkit" if layer.media_type == IN_TOTO else ""


def judge(document: Document, digest: Digest, candidates: Sequence[Candidate], *, now: datetime) -> Judged:
    """Return who proved what about the image `digest` with one document. It never raises for bad documents."""
    if document.problem:
        return Judged(document, "refused", clean(document.problem)[:500])
    try:
        if document.format == "buildkit":
            return _unsigned(document)
        if document.format == "bundle":
            return _judge_bundle(document, parse_bundle(document.content), digest, candidates)
        if document.format == "notation":
            return _judge_notation(document, digest, candidates, now)
        return _judge_legacy(document, digest, candidates)
    except SignatureRefused as error:
        return Judged(document, "refused", clean(error.message)[:500])


def _unsigned(document: Document) -> Judged:
    statement = parse_statement(document.content)
    why = "A bare statement without a signature. Anybody who can push could have written it."
    return _judged(document, "unsigned", why, statement=statement)


def _judge_bundle(document: Document, bundle: Bundle, digest: Digest, candidates: Sequence[Candidate]) -> Judged:
    artifact = Artifact.of_digest(digest)
    if not bundle.is_keyless:
        return _by_keys(
            document,
            candidates,
            lambda key: verify_with_key(bundle, key, artifact),
            statement_of(bundle.envelope) if bundle.envelope is not None else None,
        )
    return _by_identity(document, candidates, lambda root: verify_keyless(bundle, root, artifact))


def _judge_legacy(document: Document, digest: Digest, candidates: Sequence[Candidate]) -> Judged:
    layer = LegacySignature(document.content, document.annotations, document.format == "dsse")
    if layer.has_certificate:
        return _by_identity(document, candidates, lambda root: verify_legacy_keyless(layer, root, digest))
    claimed = statement_of(parse_envelope(layer.content)) if layer.is_attestation else None
    return _by_keys(document, candidates, lambda key: verify_legacy_with_key(layer, key, digest), claimed)


def _by_keys(
    document: Document,
    candidates: Sequence[Candidate],
    verify: Callable[[Any], Verified],
    claimed: Statement | None,
) -> Judged:
    """Try every trusted key. A signature by another key proves nothing, and is no fault of the image."""
    found: list[tuple[int, Verified]] = []
    reason = ""
    for candidate in candidates:
        if candidate.key is None:
            continue
        try:
            found.append((candidate.signer_id, verify(candidate.key)))
        except SignatureRefused as error:
            reason = error.message
    if found:
        return _verified(document, [signer_id for signer_id, _ in found], found[0][1])
    why = "Not made by a trusted key." + (f" {reason}" if reason and "does not match" not in reason else "")
    return _judged(document, "unknown", why, statement=claimed)


def _by_identity(
    document: Document, candidates: Sequence[Candidate], verify: Callable[[TrustedRoot], Verified]
) -> Judged:
    """Verify with the root of each trusted identity, and with the public one, to say whose signature it is."""
    roots = {candidate.root.fingerprint: candidate.root for candidate in candidates if candidate.root is not None}
    roots.setdefault(shipped_root().fingerprint, shipped_root())
    stranger: Verified | None = None
    reason = ""
    matched: list[int] = []
    matching: Verified | None = None
    for fingerprint, root in roots.items():
        try:
            verified = verify(root)
        except SignatureRefused as error:
            reason = reason or error.message
            continue
        ids = [
            candidate.signer_id
            for candidate in candidates
            if candidate.rule is not None
            and candidate.root is not None
            and candidate.root.fingerprint == fingerprint
            and candidate.rule.matches(verified.signer)
        ]
        matched += ids
        matching = matching or (verified if ids else None)
        stranger = stranger or verified
    if matching is not None:
        return _verified(document, matched, matching)
    if stranger is not None:
        why = f"Signed by {stranger.signer}, whom no trusted source names."
        return _judged(document, "unknown", why, verified=stranger)
    raise SignatureRefused(reason or "The signature does not verify.")


def _judge_notation(document: Document, digest: Digest, candidates: Sequence[Candidate], now: datetime) -> Judged:
    reason = "No trusted source names notation certificates."
    found: list[tuple[int, Verified]] = []
    for candidate in candidates:
        if not candidate.anchors:
            continue
        try:
            verified = verify_jws(document.content, candidate.anchors, digest, now=now)
        except SignatureRefused as error:
            reason = error.message
            continue
        if candidate.subject and candidate.subject != verified.signer.identity:
            reason = f"Signed by {verified.signer}, whom no trusted source names."
            continue
        found.append((candidate.signer_id, verified))
    if found:
        return _verified(document, [signer_id for signer_id, _ in found], found[0][1])
    return _judged(document, "unknown", reason)


def _verified(document: Document, signer_ids: Sequence[int], verified: Verified) -> Judged:
    return _judged(document, "verified", "", signer_ids=signer_ids, verified=verified)


def _judged(
    document: Document,
    state: str,
    reason: str,
    *,
    signer_ids: Sequence[int] = (),
    verified: Verified | None = None,
    statement: Statement | None = None,
) -> Judged:
    statement = verified.statement if verified is not None else statement
    signer = verified.signer if verified is not None else None
    is_signature = statement is None or statement.predicate_type == COSIGN_SIGN
    provenance = read_provenance(statement.predicate_type, statement.predicate) if statement is not None else None
    is_proven = state == "verified" and provenance is not None
    predicate, size = _kept(None if is_signature or statement is None else statement.predicate)
    return Judged(
        document,
        state,
        clean(reason)[:500],
        tuple(sorted(set(signer_ids))),
        predicate_type="" if is_signature or statement is None else clean(statement.predicate_type)[:300] or "unnamed",
        predicate=predicate,
        size_bytes=size,
        key_fingerprint=signer.key_fingerprint if signer is not None else "",
        identity=clean(signer.identity)[:500] if signer is not None else "",
        issuer=clean(signer.issuer)[:500] if signer is not None else "",
        signed_at=verified.signed_at if verified is not None else None,
        builder_id=provenance.builder_id if is_proven and provenance is not None else "",
        source_uri=provenance.source_uri if is_proven and provenance is not None else "",
        base_digests=provenance.image_digests if is_proven and provenance is not None else (),
    )


def _kept(predicate: Any) -> tuple[Any, int]:
    """Return (the predicate as it can be stored, its size); None for one that is too large."""
    if predicate is None:
        return None, 0
    text = json.dumps(predicate)
    if len(text) > PREDICATE_MAX_BYTES:
        return None, len(text)
    return _storable(predicate), len(text)


def _storable(value: Any) -> Any:
    """Return JSON with its texts cleaned: PostgreSQL stores neither NUL nor lone surrogates."""
    if isinstance(value, dict):
        return {clean(key): _storable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_storable(entry) for entry in value]
    return clean(value) if isinstance(value, str) else value
