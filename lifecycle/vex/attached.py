"""VEX attestations that were found on images: applied while a trusted source's signer has signed them."""

from __future__ import annotations

import orjson
from django.conf import settings
from django.db import transaction

from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import VexDocumentDetails
from lifecycle.core.errors import Malformed
from lifecycle.registry.models import Image, Repository
from lifecycle.trust.models import Attestation, Signature
from lifecycle.vex import documents, reading
from lifecycle.vex.effects import home_of
from lifecycle.vex.models import VexDocument, VexStatement
from lifecycle.vex.openvex import CONTEXT

State = VexDocument.State
# Predicate types: `https://openvex.dev/ns`, with a version too. CycloneDX has one type for SBOMs and for VEX.
_CYCLONEDX = ("https://cyclonedx.org/vex", "https://cyclonedx.org/bom")


@transaction.atomic
def sync(image_id: int) -> None:
    """Store the VEX attestations that an image has now, and withdraw those that are gone. Safe to run twice."""
    image = Image.objects.select_for_update(of=("self",), no_key=True).filter(pk=image_id).first()
    if image is None:
        return
    found = _attestations(image)
    kept = {row.digest: row for row in image.vex_documents.filter(state__in=VexDocument.NEXT).defer("content")}
    for digest, row in kept.items():
        if digest not in found:
            documents.move(row, State.WITHDRAWN)
            documents.set_statements(row, VexStatement.State.WITHDRAWN)
            _record(Action.VEX_DOCUMENT_WITHDRAWN, row, "It is not attached any more.")
    for digest, attestation in found.items():
        document = kept.get(digest) or _new(image, digest, attestation)
        if document is not None:
            _trust(document, attestation.signature)


def _attestations(image: Image) -> dict[str, Attestation]:
    """Return {digest of the object: the attestation}. The same object can be in several repositories."""
    rows = Attestation.objects.filter(signature__image=image, predicate__isnull=False).select_related("signature")
    found: dict[str, Attestation] = {}
    for row in rows.order_by("pk"):
        kind = row.signature.predicate_type
        if not kind.startswith((CONTEXT, *_CYCLONEDX)):
            continue
        if kind.startswith(_CYCLONEDX) and not (
            isinstance(row.predicate, dict) and row.predicate.get("vulnerabilities")
        ):
            continue  # an SBOM
        if _is_ours(row.predicate):
            continue  # a promotion attested what we decided: it would only repeat decisions, also ended ones
        other = found.get(row.signature.object_digest)
        if other is None or other.signature.state != Signature.State.VERIFIED:
            found[row.signature.object_digest] = row
    return found


def _is_ours(predicate: object) -> bool:
    name = predicate.get("@id") if isinstance(predicate, dict) else None
    return isinstance(name, str) and name.startswith(f"{settings.PUBLIC_URL}/vex/")


def _new(image: Image, digest: str, attestation: Attestation) -> VexDocument | None:
    """Return the new document; None for one that cannot be read: the image page shows the attestation all the same."""
    if not isinstance(attestation.predicate, dict):
        return None
    try:
        parsed = reading.parse_document(attestation.predicate, is_attached=True)
    except Malformed:
        return None
    if not parsed.statements and not parsed.refused:
        return None
    home = Repository.objects.select_related("team").filter(pk__in=[home_of(image)]).first()
    content = orjson.dumps(attestation.predicate)
    return documents.stored(parsed, content, digest, system_user(), home.team if home else None, image=image)


def _trust(document: VexDocument, signature: Signature) -> None:
    """Apply a document while a trusted signer has signed it, and make it advice otherwise."""
    signers = set(signature.signers.values_list("pk", flat=True))
    is_trusted = signature.state == Signature.State.VERIFIED and bool(signers)
    before = set(document.signers.values_list("pk", flat=True))
    document.signers.set(signers if is_trusted else ())
    why = "" if is_trusted else (signature.reason or documents.UNSIGNED)
    if document.why_advice != why:
        document.why_advice = why
        document.save(update_fields=["why_advice"])
    wanted = State.APPLIED if is_trusted else State.ADVICE
    if document.state != wanted:
        documents.move(document, wanted)
        documents.set_statements(document, VexStatement.State.LIVE if is_trusted else VexStatement.State.ADVICE)
    elif before != (signers if is_trusted else set()):
        documents.tell_changed(document)
    else:
        return
    _record(Action.VEX_DOCUMENT_FOUND, document, why)


@transaction.atomic
def trust_again() -> None:
    """Look again at whom to trust, after a source changed: signers that are gone take their documents along."""
    for document in VexDocument.objects.filter(image__isnull=False, state=State.APPLIED).defer("content"):
        if document.signers.exists():
            documents.tell_changed(document)
            continue
        document.why_advice = "Its signer is no longer trusted."
        documents.move(document, State.ADVICE, why_advice=document.why_advice)
        documents.set_statements(document, VexStatement.State.ADVICE)
        _record(Action.VEX_DOCUMENT_FOUND, document, document.why_advice)


def _record(action: Action, document: VexDocument, reason: str) -> None:
    audit.record(
        action, actor=system_user(), subject=document, team=document.team, image=document.image, reason=reason,
        details=VexDocumentDetails(
            format=document.format, name=document.name, author=document.author, version=document.version,
            digest=document.digest, statements=document.statement_count, refused=document.refused_count,
        ),
    )  # fmt: skip
