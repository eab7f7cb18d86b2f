"""Tell people about something, in the transaction in which it happens, and the words that all packages share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from django.db import transaction

from accounts.models import Robot, User
from lifecycle.core import clock
from lifecycle.events import AuditRecorded
from lifecycle.notices.messages import mail_to, send_to_channels, why_no_mail
from lifecycle.notices.models import InboxItem, Notice
from lifecycle.notices.preferences import INBOX, MAIL, is_muted, mutes_by_person, preferences_by_person, wants
from lifecycle.notices.queries import who_can_see
from lifecycle.notices.topics import Topic
from lifecycle.notices.types import Telling


@transaction.atomic
def tell(what: Telling, people: Iterable[int]) -> Notice | None:
    """Store a notice for those of `people` (ids) who can see its repository; return it, or None if it was told before.

    The caller leaves out who did it. Nobody is told what they cannot see, whoever is named. Raises ValueError when it
    is not about exactly one of a repository, a team and a person.
    """
    if sum(about is not None for about in (what.repository, what.team, what.person)) != 1:
        raise ValueError("A notice is about a repository, a team or a person.")
    notice, is_new = Notice.objects.get_or_create(
        key=what.key,
        defaults={
            "topic": what.topic.name,
            "thread": what.thread,
            "subject": what.subject[:300],
            "text": what.text,
            "link": what.link,
            "repository": what.repository,
            "team": what.team,
            "person": what.person,
            "environment": what.environment,
            "actor_name": what.actor,
            "facts": dict(what.facts),
        },
    )
    if not is_new:
        return None
    if what.person is not None:
        _tell_people(notice, [what.person])
        return notice
    if what.is_for_channels:
        send_to_channels(notice)
    _tell_people(notice, who_can_see(notice, people))
    return notice


def _tell_people(notice: Notice, persons: Sequence[User]) -> None:
    """Put a notice into the lists of these people and queue their mails, as they wish. A muted one arrives as read."""
    preferences = preferences_by_person(persons)
    mutes = mutes_by_person(preferences)
    muted = {pk for pk, rows in mutes.items() if is_muted(rows, notice, notice.repository_name)}
    now = clock.now()
    InboxItem.objects.bulk_create(
        InboxItem(notice=notice, person=person, read_at=now if person.pk in muted else None)
        for person in persons
        if wants(preferences[person.pk], notice.topic, INBOX)
    )
    for person in persons:
        wish = preferences[person.pk]
        if person.pk not in muted and wants(wish, notice.topic, MAIL) and not why_no_mail(person):
            mail_to(person, notice, wish)


def settle(thread: str, topics: Collection[Topic]) -> None:
    """Mark the notices of these topics about one object as read, when nobody needs to act on them any more."""
    names = [topic.name for topic in topics]
    items = InboxItem.objects.filter(notice__thread=thread, notice__topic__in=names, read_at=None)
    items.update(read_at=clock.now())


def person_behind(user: User) -> set[int]:
    """Return whom to tell for a user: the user, or for a robot the user who is responsible for it, if any."""
    if user.kind != User.Kind.ROBOT:
        return {user.pk}
    responsible = Robot.objects.filter(user=user).values_list("responsible", flat=True).first()
    return {responsible} if responsible is not None else set()


def by(event: AuditRecorded) -> User | None:
    """Return who did it."""
    return User.objects.filter(pk=event.actor_id).first() if event.actor_id is not None else None


def name_of(actor: User | None) -> str:
    """Return the name of who did it, for a notice; "" for Gravingdock itself."""
    return actor.username if actor is not None and actor.kind != User.Kind.SYSTEM else ""


def because(event: AuditRecorded, before: str = "Reason: ") -> str:
    """Return the reason of an event as the end of a sentence, or ""."""
    return f" {before}{event.reason}" if event.reason else ""


def key_of(event: AuditRecorded) -> str:
    """Return the key of the notice about an event: it is told once."""
    return f"audit-{event.event_id}"
