"""Who is told about waivers: those who can decide, and the requester. Subscribed to the audit log."""

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
from lifecycle.policies.models import Waiver

ASKED: Final = register(Topic("waiver.asked", "Waiver asked", "A waiver was requested that you can approve."))
DECIDED: Final = register(Topic("waiver.decided", "Waiver decided", "A waiver of yours was approved or rejected."))
ENDING: Final = register(
    Topic("waiver.ending", "Waiver ends soon", "A waiver that you requested or approved ends in 14, 3 or 1 days.")
)
ENDED: Final = register(
    Topic(
        "waiver.ended",
        "Waiver ended",
        "A waiver that you requested or approved ended: a fix shipped, its time is over, or somebody revoked it.",
    )
)


def tell_about_waiver(event: AuditRecorded) -> None:
    """Tell people about an event of the audit log, if it is one about a waiver that somebody wants to know."""
    teller = _TELLERS.get(event.action)
    if teller is None or event.subject_kind != "waiver" or event.subject_id is None:
        return
    rows = Waiver.objects.select_related("team", "repository__team", "environment", "requested_by", "decided_by")
    waiver = rows.filter(pk=event.subject_id).first()
    if waiver is not None:
        teller(waiver, event)


def _tell(
    topic: Topic, waiver: Waiver, event: AuditRecorded, *, text: str, people: Iterable[int], actor: User | None = None
) -> None:
    ids = set(people) - ({actor.pk} if actor is not None else set())
    facts = {"waiver": str(waiver.pk), "state": waiver.state, "rule": waiver.rule, "until": waiver.until.isoformat(),
             "advisory": waiver.advisory, "package": waiver.package, "digest": waiver.digest, "ticket": waiver.ticket,
             "requested_by": waiver.requested_by.username}  # fmt: skip
    what = Telling(
        topic,
        key=key_of(event),
        thread=_thread(waiver),
        subject=f"{waiver}: {waiver.rule} for {waiver.scope_words}",
        text=text,
        link=reverse("lifecycle:waiver", args=[waiver.pk]),
        repository=waiver.repository,
        team=waiver.team if waiver.repository is None else None,
        environment=waiver.environment,
        actor=name_of(actor),
        facts={name: value for name, value in facts.items() if value},
    )
    tell(what, ids)


def _thread(waiver: Waiver) -> str:
    return f"waiver-{waiver.pk}"


def who_can_decide(waiver: Waiver) -> set[int]:
    """Return who can approve or reject a waiver: has the right, and counts as a second person."""
    family = waiver.repository.family if waiver.repository is not None else None
    people = people_who(Verb.WAIVER_APPROVE, team=waiver.team, family=family, environment=waiver.environment)
    counted = counted_voters(people, [waiver.requested_by_id]).exclude(pk=waiver.requested_by_id)
    return set(counted.values_list("pk", flat=True))


def _people_of(waiver: Waiver) -> set[int]:
    """Return the requester and who approved it."""
    decided = {waiver.decided_by_id} if waiver.decided_by_id is not None else set()
    return person_behind(waiver.requested_by) | decided


def _asked(waiver: Waiver, event: AuditRecorded) -> None:
    text = f"{waiver.requested_by} asks for a waiver until {waiver.until:%Y-%m-%d}. Reason: {waiver.reason}"
    _tell(ASKED, waiver, event, text=text, people=who_can_decide(waiver), actor=by(event))


def _decided(waiver: Waiver, event: AuditRecorded) -> None:
    settle(_thread(waiver), (ASKED,))
    actor = by(event)
    if waiver.state == Waiver.State.APPROVED:
        text = f"{actor} approved it. It ends on {waiver.until:%Y-%m-%d}.{because(event)}"
    else:
        text = f"{actor} rejected it.{because(event)}"
    _tell(DECIDED, waiver, event, text=text, people=person_behind(waiver.requested_by), actor=actor)


def _ending(waiver: Waiver, event: AuditRecorded) -> None:
    days = waiver.warned_days or 1
    unit = "day" if days == 1 else "days"
    text = (
        f"It ends on {waiver.until:%Y-%m-%d}, in at most {days} {unit}. Then the rule applies again."
        " Fix the cause, or request a new waiver."
    )
    settle(_thread(waiver), (ENDING,))
    _tell(ENDING, waiver, event, text=text, people=_people_of(waiver))


def _closed(waiver: Waiver, event: AuditRecorded) -> None:
    text = f"It ended, because a fix shipped: the rule applies again.{because(event, '')} Update the package."
    _ended(waiver, event, text)


def _expired(waiver: Waiver, event: AuditRecorded) -> None:
    if waiver.decided_by_id is None:
        text = "Nobody decided about it before its end. Request it again if you still need it."
    else:
        text = "Its time is over: the rule applies again."
    _ended(waiver, event, text)


def _revoked(waiver: Waiver, event: AuditRecorded) -> None:
    actor = by(event)
    _ended(waiver, event, f"{actor} revoked it: the rule applies again.{because(event)}", actor=actor)


def _ended(waiver: Waiver, event: AuditRecorded, text: str, actor: User | None = None) -> None:
    settle(_thread(waiver), (ASKED, ENDING))
    _tell(ENDED, waiver, event, text=text, people=_people_of(waiver), actor=actor)


_TELLERS: Final[Mapping[str, Callable[[Waiver, AuditRecorded], None]]] = {
    Action.WAIVER_REQUESTED.value: _asked,
    Action.WAIVER_APPROVED.value: _decided,
    Action.WAIVER_REJECTED.value: _decided,
    Action.WAIVER_ENDING.value: _ending,
    Action.WAIVER_CLOSED.value: _closed,
    Action.WAIVER_EXPIRED.value: _expired,
    Action.WAIVER_REVOKED.value: _revoked,
}
