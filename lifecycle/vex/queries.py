"""Reads of statements and documents that several callers share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import covered, repositories_visible_to, teams_visible_to
from lifecycle.authority.rights import is_above_grants
from lifecycle.registry.models import RepositoryImage
from lifecycle.vex.models import VexDocument, VexEffect, VexFeed, VexStatement


def decisions_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[VexStatement]:
    """Return the decisions about repositories, or whole teams, on which `actor` has `verb`; those about all images too.

    Only admins decide about all images, so with another verb than `image.view` these are left out.
    """
    rows = VexStatement.objects.filter(document=None).select_related("team", "repository__team", "author", "decided_by")
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return rows
    # No statement is about an environment, so a grant for one environment shows none.
    is_covered = covered(actor, verb, team="team", family="repository__family", environment="repository__environment")
    if verb != Verb.IMAGE_VIEW:
        return rows.filter(is_covered)
    return rows.filter(
        is_covered
        | Q(scope=VexStatement.Scope.ALL)
        | Q(scope=VexStatement.Scope.TEAM, team__in=teams_visible_to(actor))
    )


def decisions_in_inbox(actor: User) -> QuerySet[VexStatement]:
    """Return the decisions that wait for `actor` as a second person."""
    if not actor.is_person:
        return VexStatement.objects.none()
    rows = decisions_visible_to(actor, Verb.WAIVER_APPROVE)
    if is_above_grants(actor):
        everywhere = VexStatement.objects.filter(document=None, scope=VexStatement.Scope.ALL)
        rows = decisions_visible_to(actor).filter(Q(pk__in=rows.values("pk")) | Q(pk__in=everywhere.values("pk")))
    return rows.filter(state=VexStatement.State.REQUESTED).exclude(author=actor)


def documents_visible_to(actor: User) -> QuerySet[VexDocument]:
    """Return the documents about all images, about images of the teams that `actor` can see, and attached to an image
    that `actor` can see.
    """
    seen = Exists(
        RepositoryImage.objects.filter(
            image=OuterRef("image"), repository__in=repositories_visible_to(actor), removed_at=None
        )
    )
    rows = VexDocument.objects.filter(
        Q(image=None, team=None) | Q(image=None, team__in=teams_visible_to(actor)) | Q(image__isnull=False) & seen
    )
    return rows.select_related("team", "image", "feed", "uploaded_by", "accepted_by").defer("content")


def feeds_visible_to(actor: User) -> QuerySet[VexFeed]:
    """Return the feeds about all images, and about images of the teams that `actor` can see."""
    rows = VexFeed.objects.filter(Q(team=None) | Q(team__in=teams_visible_to(actor)))
    return rows.select_related("team", "added_by", "trusted_by")


@dataclass(frozen=True, slots=True)
class Decided:
    """The statement that counts for a finding, as far as the reader may know it.

    Of one that the reader cannot see (about a base, or made where an image was copied from), only status,
    justification and end date are known.
    """

    id: int | None
    status: str
    justification: str
    reason: str
    author: str
    said_at: datetime
    until: datetime | None
    scope: str
    is_inherited: bool
    suppresses: bool
    source: str  # "decision", or the format of the document

    @property
    def name(self) -> str:
        """How pages name it: VEX-12; "" when the reader cannot see it."""
        return f"VEX-{self.id}" if self.id is not None else ""

    @property
    def words(self) -> str:
        """The status in words: "Not affected"."""
        return str(VexStatement.Status(self.status).label)

    @property
    def justification_words(self) -> str:
        """The justification in words; "" without one."""
        row = VexStatement(justification=self.justification)
        return str(row.get_justification_display()) if self.justification else ""

    def as_json(self) -> dict[str, Any]:
        """Return the object `vex` of a finding."""
        return {
            "id": self.id,
            "status": self.status,
            "justification": self.justification,
            "reason": self.reason,
            "author": self.author,
            "said_at": self.said_at.isoformat(),
            "until": self.until.isoformat() if self.until else None,
            "scope": self.scope,
            "source": self.source,
            "inherited": self.is_inherited,
        }


def decided_in(image_ids: Collection[int], reader: User | None) -> dict[tuple[int, int, str], Decided]:
    """Return {(image, package version, vulnerability): the statement that counts}; three queries for any number.

    Without a `reader`, all are shown as to somebody who can see none.
    """
    rows = list(
        VexEffect.objects.filter(image__in=image_ids)
        .select_related("statement__document", "statement__author", "statement__repository", "statement__team")
        .defer("statement__document__content")
    )
    seen: set[int] = set()
    if reader is not None and rows:
        decisions, documents = decisions_visible_to(reader), documents_visible_to(reader)
        known = VexStatement.objects.filter(
            Q(pk__in=decisions.values("pk")) | Q(document__in=documents.values("pk")),
            pk__in={row.statement_id for row in rows},
        )
        seen = set(known.values_list("pk", flat=True))
    return {
        (row.image_id, row.package_id, row.vulnerability): _decided(row, is_hidden=row.statement_id not in seen)
        for row in rows
    }


def _decided(row: VexEffect, *, is_hidden: bool) -> Decided:
    statement = row.statement
    return Decided(
        id=None if is_hidden else statement.pk,
        status=statement.status,
        justification=statement.justification,
        reason="" if is_hidden else statement.reason,
        author="" if is_hidden else statement.said_by,
        said_at=statement.said_at,
        until=statement.until,
        scope="" if is_hidden else statement.scope,
        is_inherited=row.inherited_from_id is not None,
        suppresses=row.suppresses,
        source=statement.document.format if statement.document is not None else "decision",
    )
