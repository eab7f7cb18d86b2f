"""VEX documents that people send: read, kept, and applied only when signed by a trusted source or accepted."""

from __future__ import annotations

import zlib
from typing import Final

from django.db import transaction

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import VexDocumentDetails
from lifecycle.authority.identity import why_not_second, why_token_not_counted
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import move_row
from lifecycle.core.types import Digest
from lifecycle.registry.models import Image
from lifecycle.vex import reading
from lifecycle.vex.access import document_for, why_not
from lifecycle.vex.constants import REFUSED_MAX
from lifecycle.vex.models import VexDocument, VexFeed, VexStatement
from lifecycle.vex.types import Parsed, Product

UNSIGNED: Final = "It is not signed by a trusted source, and nobody has accepted it."
UNTRUSTED: Final = "It comes from a feed that no second person trusts."
State = VexDocument.State
_BATCH: Final = 1000


@transaction.atomic
def import_document(content: bytes, *, actor: User, team: Team | None) -> VexDocument:
    """Store a VEX document about the images of a team, or of everybody (None). It is advice until it is accepted.

    Raises NotPermitted, Malformed for a document that cannot be read, and Conflict for one that is here already.
    """
    refuse_if(why_not(actor, Verb.WAIVER_REQUEST, team))
    parsed = reading.parse(content)
    if not parsed.statements and not parsed.refused:
        raise Malformed("The document has no statements.")
    digest = Digest.of(content).text
    if same := VexDocument.objects.filter(digest=digest, team=team, state__in=VexDocument.NEXT).first():
        raise Conflict(f"{same} is the same document.")
    document = stored(parsed, content, digest, actor, team)
    _replace_earlier(document, actor)
    _record(Action.VEX_DOCUMENT_IMPORTED, document, actor)
    return document


def stored(
    parsed: Parsed,
    content: bytes,
    digest: str,
    actor: User,
    team: Team | None,
    *,
    image: Image | None = None,
    feed: VexFeed | None = None,
) -> VexDocument:
    """Return a new document with its statements, as advice."""
    now = clock.now()
    document = VexDocument.objects.create(
        team=team, image=image, feed=feed, format=parsed.format, name=parsed.name, author=parsed.author,
        version=parsed.version, issued_at=parsed.issued_at, digest=digest, content=zlib.compress(content),
        why_advice=UNSIGNED if feed is None else UNTRUSTED,
        statement_count=len(parsed.statements), refused_count=len(parsed.refused),
        refused=[[each.position, each.reason] for each in parsed.refused[:REFUSED_MAX]], uploaded_by=actor,
    )  # fmt: skip
    VexStatement.objects.bulk_create(
        [
            VexStatement(
                document=document, position=each.position[:200], names=list(each.names), status=each.status,
                justification=each.justification, reason=each.text, state=VexStatement.State.ADVICE,
                # A date in the future would win over everything that is said until then.
                said_at=min(each.said_at or now, now),
                # Without a product, an attestation is about the image that it is attached to.
                products=[product.as_json() for product in each.products or (Product(),)],
            )
            for each in parsed.statements
        ],
        batch_size=_BATCH,
    )  # fmt: skip
    return document


def _replace_earlier(document: VexDocument, actor: User) -> None:
    """End earlier advice with the same id. What is applied stays until the newer version is applied too."""
    states = [State.ADVICE] if document.state == State.ADVICE else [State.ADVICE, State.APPLIED]
    if not document.name:
        return
    rows = VexDocument.objects.select_for_update(of=("self",)).filter(
        team=document.team, feed=None, format=document.format, name=document.name, author=document.author,
        state__in=states,
    )  # fmt: skip
    for other in rows.exclude(pk=document.pk).defer("content"):
        move(other, State.REPLACED)
        set_statements(other, VexStatement.State.WITHDRAWN)
        _record(Action.VEX_DOCUMENT_REPLACED, other, actor, reason=f"Replaced by {document}.")


def why_not_accept(actor: User, document: VexDocument) -> Reason | None:
    """Return why `actor` cannot make a document count. Nobody accepts what they sent."""
    problem = ""
    if document.image_id is not None:
        problem = "Nobody accepts an attestation. Sign it with a trusted key, or decide about the finding."
    elif document.feed_id is not None:
        problem = "A document of a feed counts while the feed is trusted. Trust the feed."
    elif not actor.is_person:
        problem = "Only people can accept documents."
    elif actor.pk == document.uploaded_by_id:
        problem = "Someone else has to accept what you sent."
    else:
        problem = why_not_second(actor, [document.uploaded_by_id])
        problem = problem or why_token_not_counted()
    if problem:
        return Reason(problem)
    if refused := why_not(actor, Verb.WAIVER_APPROVE, document.team):
        return refused
    if document.state == State.ADVICE:
        return None
    return Reason(f"{document} is already {document.state}.", IllegalTransition)


def why_not_withdraw(actor: User, document: VexDocument) -> Reason | None:
    """Return why `actor` cannot end a document: who sent it can, and who can accept it."""
    if document.image_id is not None:
        return Reason("Remove the attestation from the registry, or retire its signer.")
    if document.feed_id is not None:
        return Reason("The next run of its feed would bring it back. End the trust in the feed, or remove the feed.")
    refused = why_not(actor, Verb.WAIVER_APPROVE, document.team)
    if actor.pk != document.uploaded_by_id and refused is not None:
        return refused
    if document.state in VexDocument.NEXT:
        return None
    return Reason(f"{document} is already {document.state}.", IllegalTransition)


@transaction.atomic
def accept(document_id: int, *, actor: User, reason: str = "") -> VexDocument:
    """Let the statements of a document count, as a second person. Raises NotFound, NotPermitted, IllegalTransition."""
    document = document_for(actor, document_id, locked=True)
    refuse_if(why_not_accept(actor, document))
    move(document, State.APPLIED, accepted_by=actor, why_advice="")
    set_statements(document, VexStatement.State.LIVE)
    _replace_earlier(document, actor)
    _record(Action.VEX_DOCUMENT_ACCEPTED, document, actor, reason=reason.strip())
    return document


@transaction.atomic
def withdraw_document(document_id: int, *, actor: User, reason: str = "") -> VexDocument:
    """End a document: its statements do not count any more. Raises NotFound, NotPermitted, IllegalTransition."""
    document = document_for(actor, document_id, locked=True)
    refuse_if(why_not_withdraw(actor, document))
    move(document, State.WITHDRAWN)
    set_statements(document, VexStatement.State.WITHDRAWN)
    _record(Action.VEX_DOCUMENT_WITHDRAWN, document, actor, reason=reason.strip())
    return document


def move(document: VexDocument, state: str, **changes: object) -> None:
    """Move a locked document to `state`; the only writer of `state`. Raises IllegalTransition."""
    move_row(document, state, **{**changes, "decided_at": clock.now()})


def set_statements(document: VexDocument, state: str) -> None:
    """Let the statements of a document follow its state, and tell who counts."""
    is_final = state == VexStatement.State.WITHDRAWN
    rows = document.statements.all()
    ids = tuple(rows.order_by("pk").values_list("pk", flat=True))
    had_effect = document.statements.filter(state=VexStatement.State.LIVE).exists()
    rows.update(state=state, ended_at=clock.now() if is_final else None)
    if ids and (had_effect or state == VexStatement.State.LIVE):
        events.publish(events.VexChanged(ids))


def tell_changed(document: VexDocument) -> None:
    """Tell that an applied document counts for other images than before."""
    ids = tuple(document.statements.order_by("pk").values_list("pk", flat=True))
    if ids:
        events.publish(events.VexChanged(ids))


def _record(action: Action, document: VexDocument, actor: User, *, reason: str = "") -> None:
    audit.record(
        action, actor=actor, subject=document, team=document.team, reason=reason,
        details=VexDocumentDetails(
            format=document.format, name=document.name, author=document.author, version=document.version,
            digest=document.digest, statements=document.statement_count, refused=document.refused_count,
        ),
    )  # fmt: skip


def content_of(document: VexDocument) -> bytes:
    """Return a document as it was sent."""
    return zlib.decompress(bytes(document.content))
