"""Who is told about release sets: the same people as about a request, once for the whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from django.urls import reverse

from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.events import AuditRecorded
from lifecycle.notices.telling import because, by, key_of, name_of, settle, tell
from lifecycle.notices.topics import Topic
from lifecycle.notices.types import Telling
from lifecycle.promotion.models import PromotionRequest, ReleaseSet, Vote
from lifecycle.promotion.release_queries import members_of
from lifecycle.promotion.telling import (
    ASKED,
    DECIDED,
    EXECUTED,
    EXPIRED,
    FAILED,
    REGRESSED,
    REMINDED,
    at,
    needs_approval,
    requester_of,
    who,
    who_can_approve,
)

_Set = tuple[ReleaseSet, list[PromotionRequest]]


def tell_about_set(event: AuditRecorded) -> None:
    """Tell people about an event of the audit log, if it is one about a release set that somebody wants to know."""
    teller = _TELLERS.get(event.action)
    if teller is None or event.subject_kind != "releaseset" or event.subject_id is None:
        return
    rows = ReleaseSet.objects.select_related("environment__team", "requested_by", "executed_by")
    release_set = rows.filter(pk=event.subject_id).first()
    if release_set is not None:
        teller((release_set, members_of(release_set)), event)


def thread_of_set(release_set: ReleaseSet) -> str:
    """Return the thread of all notices about a set."""
    return f"releaseset-{release_set.pk}"


def _tell(topic: Topic, about: _Set, event: AuditRecorded, *, text: str, people: Iterable[int], by_actor: bool) -> None:
    release_set, members = about
    actor = by(event) if by_actor else None
    ids = set(people) - ({actor.pk} if actor is not None else set())
    names = ", ".join(f"{row.repository.name}:{row.tag}" for row in members[:3])
    more = f" and {len(members) - 3} more" if len(members) > 3 else ""
    what = Telling(
        topic,
        key=key_of(event),
        thread=thread_of_set(release_set),
        subject=f"{release_set}: {names}{more} to {release_set.environment.slug}",
        text=text,
        link=reverse("lifecycle:release-set", args=[release_set.pk]),
        repository=members[0].repository,
        environment=release_set.environment,
        actor=name_of(actor),
        facts={
            "release_set": str(release_set.pk),
            "state": release_set.state,
            "members": str(len(members)),
            "requested_by": release_set.requested_by.username,
        },
    )
    tell(what, ids)


def _all(members: Iterable[PromotionRequest], of: Callable[[PromotionRequest], set[int]]) -> set[int]:
    """Return the users who are among those of every member: only they can act on the set."""
    groups = [of(row) for row in members]
    return set.intersection(*groups) if groups else set()


def _runners(members: Iterable[PromotionRequest]) -> set[int]:
    return _all(members, lambda row: who(row, Verb.PROMOTION_EXECUTE))


def _approved_by(release_set: ReleaseSet) -> set[int]:
    votes = Vote.objects.filter(request__release_set=release_set, value=Vote.Value.APPROVE)
    return set(votes.values_list("voter", flat=True))


def _asked(about: _Set, event: AuditRecorded) -> None:
    release_set, members = about
    if members and needs_approval(members[0]):
        text = f"{release_set.requested_by} asks for approval of {len(members)} as one. Reason: {release_set.reason}"
        _tell(ASKED, about, event, text=text, people=_all(members, who_can_approve), by_actor=True)


def _reminded(about: _Set, event: AuditRecorded) -> None:
    release_set, members = about
    if release_set.state == ReleaseSet.State.READY:
        text = f"It is ready, and expires{at(release_set.execute_by)} unless somebody runs it."
        people = requester_of(release_set) | _runners(members)
    else:
        text = f"It still waits for approval, and expires{at(release_set.approve_by)}."
        people = _all(members, who_can_approve) - _approved_by(release_set)
    _tell(REMINDED, about, event, text=text, people=people, by_actor=False)


def _ready(about: _Set, event: AuditRecorded) -> None:
    release_set, members = about
    settle(thread_of_set(release_set), (ASKED, REMINDED))
    text = f"All requirements of all members are met. It expires{at(release_set.execute_by)} unless somebody runs it."
    people = requester_of(release_set) | _runners(members)
    _tell(DECIDED, about, event, text=text, people=people, by_actor=False)


def _regressed(about: _Set, event: AuditRecorded) -> None:
    release_set, _ = about
    settle(thread_of_set(release_set), (DECIDED,))
    text = f"It no longer meets all requirements.{because(event, '')}"
    people = requester_of(release_set) | _approved_by(release_set)
    _tell(REGRESSED, about, event, text=text, people=people, by_actor=False)


def _stopped(words: str) -> Callable[[_Set, AuditRecorded], None]:
    """Return the teller of a vote against the set."""

    def told(about: _Set, event: AuditRecorded) -> None:
        release_set, _ = about
        settle(thread_of_set(release_set), (ASKED, REMINDED, DECIDED) if words == "rejected it" else ())
        actor = by(event)
        people = requester_of(release_set) | _approved_by(release_set)
        _tell(DECIDED, about, event, text=f"{actor} {words}.{because(event)}", people=people, by_actor=True)

    return told


def _ended(about: _Set, event: AuditRecorded) -> None:
    settle(thread_of_set(about[0]), (ASKED, REMINDED, DECIDED))


def _expired(about: _Set, event: AuditRecorded) -> None:
    _ended(about, event)
    what = "approved" if event.reason == "approve_by" else "run"
    text = f"It was not {what} in time. Request it again if it is still needed."
    if event.action == Action.RELEASE_SET_SUPERSEDED:
        text = "A rollback or break-glass of one member took its place."
    _tell(EXPIRED, about, event, text=text, people=requester_of(about[0]), by_actor=False)


def _executed(about: _Set, event: AuditRecorded) -> None:
    release_set, members = about
    settle(thread_of_set(release_set), (DECIDED,))
    text = f"{release_set.environment.slug} now has all {len(members)} of it."
    people = requester_of(release_set) | _approved_by(release_set)
    _tell(EXECUTED, about, event, text=text, people=people, by_actor=True)


def _failed(about: _Set, event: AuditRecorded) -> None:
    release_set, members = about
    runner = {release_set.executed_by_id} if release_set.executed_by_id is not None else set()
    people = requester_of(release_set) | runner
    if event.action == Action.RELEASE_SET_FAILED:
        people |= _runners(members)
        text = f"It failed; the environment keeps its images.{because(event, '')}"
    else:
        text = f"It failed for a technical reason, and can be run again.{because(event, '')}"
    _tell(FAILED, about, event, text=text, people=people, by_actor=False)


_TELLERS: Final[Mapping[str, Callable[[_Set, AuditRecorded], None]]] = {
    Action.RELEASE_SET_REQUESTED.value: _asked,
    Action.RELEASE_SET_REMINDED.value: _reminded,
    Action.RELEASE_SET_READY.value: _ready,
    Action.RELEASE_SET_REGRESSED.value: _regressed,
    Action.RELEASE_SET_OBJECTED.value: _stopped("objected; it waits until the objection is withdrawn or overruled"),
    Action.RELEASE_SET_REJECTED.value: _stopped("rejected it"),
    Action.RELEASE_SET_WITHDRAWN.value: _ended,
    Action.RELEASE_SET_EXPIRED.value: _expired,
    Action.RELEASE_SET_SUPERSEDED.value: _expired,
    Action.RELEASE_SET_EXECUTING.value: _ended,
    Action.RELEASE_SET_SUCCEEDED.value: _executed,
    Action.RELEASE_SET_ATTEMPT_FAILED.value: _failed,
    Action.RELEASE_SET_FAILED.value: _failed,
}
