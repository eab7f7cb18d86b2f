"""Who is told about decisions: those who can approve them, and the author. Subscribed to the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from django.urls import reverse

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.authority.identity import counted_voters
from lifecycle.authority.queries import people_who
from lifecycle.events import AuditRecorded
from lifecycle.notices.telling import because, by, key_of, name_of, person_behind, settle, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling
from lifecycle.vex.models import VexStatement

ASKED: Final = register(
    Topic("vex.asked", "Decision to approve", "Somebody wants to close findings, and you can approve it.")
)
DECIDED: Final = register(
    Topic("vex.decided", "Decision approved or rejected", "Your decision about a finding was approved or rejected.")
)
ENDED: Final = register(
    Topic(
        "vex.ended", "Decision ended", "A decision of yours, or that you approved, ended: its findings are open again."
    )
)


def tell_about_decision(event: AuditRecorded) -> None:
    """Tell people about an event of the audit log, if it is one about a decision that somebody wants to know.

    A notice is about a repository or a team. Decisions about all images are in the inbox of the admins.
    """
    teller = _TELLERS.get(event.action)
    if teller is None or event.subject_kind != "vexstatement" or event.subject_id is None:
        return
    rows = VexStatement.objects.select_related("team", "repository__team", "author", "decided_by", "document")
    row = rows.filter(pk=event.subject_id).first()
    if row is not None and row.team is not None:
        teller(row, event)


def _tell(
    topic: Topic,
    row: VexStatement,
    event: AuditRecorded,
    *,
    text: str,
    people: Iterable[int],
    actor: User | None = None,
) -> None:
    ids = set(people) - ({actor.pk} if actor is not None else set())
    facts = {"decision": str(row.pk), "state": row.state, "vulnerability": row.vulnerability, "status": row.status,
             "package": row.package, "digest": row.digest, "author": row.said_by}  # fmt: skip
    what = Telling(
        topic,
        key=key_of(event),
        thread=_thread(row),
        subject=f"{row}: {row.vulnerability} {row.get_status_display().lower()} for {row.scope_words}",
        text=text,
        link=reverse("lifecycle:vex-decision", args=[row.pk]),
        repository=row.repository,
        team=row.team if row.repository is None else None,
        actor=name_of(actor),
        facts={name: value for name, value in facts.items() if value},
    )
    tell(what, ids)


def _thread(row: VexStatement) -> str:
    return f"vex-{row.pk}"


def who_can_approve(row: VexStatement) -> set[int]:
    """Return who can approve a decision of a team: has the right, and counts as a second person."""
    if row.team is None:
        return set()
    family = row.repository.family if row.repository is not None else None
    people = people_who(Verb.WAIVER_APPROVE, team=row.team, family=family)
    authors = [row.author_id] if row.author_id is not None else []
    return set(counted_voters(people, authors).exclude(pk__in=authors).values_list("pk", flat=True))


def _people_of(row: VexStatement) -> set[int]:
    """Return the author and who approved it."""
    approved = {row.decided_by_id} if row.decided_by_id is not None else set()
    return (person_behind(row.author) if row.author is not None else set()) | approved


def _asked(row: VexStatement, event: AuditRecorded) -> None:
    text = (
        f"{row.author} says: {row.get_status_display().lower()}. {row.get_justification_display()} {row.reason}".strip()
    )
    _tell(ASKED, row, event, text=text, people=who_can_approve(row), actor=by(event))


def _decided(row: VexStatement, event: AuditRecorded) -> None:
    settle(_thread(row), (ASKED,))
    actor = by(event)
    verb = "approved" if row.state == VexStatement.State.LIVE else "rejected"
    people = person_behind(row.author) if row.author is not None else set()
    _tell(DECIDED, row, event, text=f"{actor} {verb} it.{because(event)}", people=people, actor=actor)


def _ended(row: VexStatement, event: AuditRecorded) -> None:
    settle(_thread(row), (ASKED,))
    if event.action == Action.VEX_EXPIRED.value:
        text, actor = "Its time is over: what it closed is open again.", None
    else:
        actor = by(event)
        text = f"{actor} ended it.{because(event)}"
    _tell(ENDED, row, event, text=text, people=_people_of(row), actor=actor)


_TELLERS: Final[Mapping[str, Callable[[VexStatement, AuditRecorded], None]]] = {
    Action.VEX_REQUESTED.value: _asked,
    Action.VEX_APPROVED.value: _decided,
    Action.VEX_REJECTED.value: _decided,
    Action.VEX_EXPIRED.value: _ended,
    Action.VEX_WITHDRAWN.value: _ended,
}
