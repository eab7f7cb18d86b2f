"""Statements and documents by id: check that the actor can see them, and lock."""

from __future__ import annotations

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.rights import is_above_grants, may
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason
from lifecycle.registry.models import Repository
from lifecycle.vex.models import VexDocument, VexFeed, VexStatement
from lifecycle.vex.queries import decisions_visible_to, documents_visible_to, feeds_visible_to


def decision_for(actor: User, statement_id: int, *, locked: bool = False) -> VexStatement:
    """Return a decision that `actor` can see, perhaps locked; raises NotFound."""
    rows = decisions_visible_to(actor).filter(pk=statement_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("VEX statement not found, or you don't have access.")
    return row


def document_for(actor: User, document_id: int, *, locked: bool = False) -> VexDocument:
    """Return a document that `actor` can see, perhaps locked; raises NotFound."""
    rows = documents_visible_to(actor).filter(pk=document_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("VEX document not found, or you don't have access.")
    return row


def feed_for(actor: User, feed_id: int, *, locked: bool = False) -> VexFeed:
    """Return a feed that `actor` can see, perhaps locked; raises NotFound."""
    rows = feeds_visible_to(actor).filter(pk=feed_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("VEX feed not found, or you don't have access.")
    return row


def why_not(actor: User, verb: Verb, team: Team | None, repository: Repository | None = None) -> Reason | None:
    """Return why `actor` lacks `verb` over a repository, a whole team, or all images (no team)."""
    if team is None:
        return None if is_above_grants(actor) else Reason("Only admins can decide about all images. Ask an admin.")
    decision = may(actor, verb, team=team, repository=repository)
    return None if decision else Reason(decision.reason)
