"""Tell people about something, in the transaction in which it happens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from django.db import transaction

from accounts.models import User
from lifecycle.core import clock
from lifecycle.notices.messages import mail_to, send_to_channels, why_no_mail
from lifecycle.notices.models import InboxItem, Notice
from lifecycle.notices.preferences import INBOX, MAIL, is_muted, mutes_by_person, preferences_by_person, wants
from lifecycle.notices.queries import who_can_see
from lifecycle.notices.topics import Topic
from lifecycle.notices.types import Telling


@transaction.atomic
def tell(what: Telling, people: Iterable[int]) -> Notice | None:
    """Store a notice for those of `people` (ids) who can see its repository; return it, or None if it was told before.

    The caller leaves out who did it. Nobody is told what they cannot see, whoever is named.
    """
    notice, is_new = Notice.objects.get_or_create(
        key=what.key,
        defaults={
            "topic": what.topic.name,
            "thread": what.thread,
            "subject": what.subject[:300],
            "text": what.text,
            "link": what.link,
            "repository": what.repository,
            "environment": what.environment,
            "actor_name": what.actor,
            "facts": dict(what.facts),
        },
    )
    if not is_new:
        return None
    send_to_channels(notice)
    _tell_people(notice, who_can_see(what.repository, what.environment, people))
    return notice


def _tell_people(notice: Notice, persons: Sequence[User]) -> None:
    """Put a notice into the lists of these people and queue their mails, as they wish. A muted one arrives as read."""
    preferences = preferences_by_person(persons)
    mutes = mutes_by_person(preferences)
    muted = {pk for pk, rows in mutes.items() if is_muted(rows, notice, notice.repository.name)}
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
