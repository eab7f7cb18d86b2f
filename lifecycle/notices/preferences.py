"""How people want to be told: read and change. Personal, so without audit events."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.db import transaction

from accounts.models import User
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.notices.models import Mute, Notice, Preferences
from lifecycle.notices.topics import all_topics, topic_called

INBOX: Final = "inbox"
MAIL: Final = "mail"
WAYS: Final = (INBOX, MAIL)
MUTED_MAX: Final = timedelta(days=366)
MUTES_MAX: Final = 100  # of one person


@dataclass(frozen=True, slots=True)
class Wish:
    """The preferences that a person enters: the topics for each way, the digest, and quiet hours."""

    inbox: frozenset[str]
    mail: frozenset[str]
    digest: str
    digest_at: time
    quiet_from: time | None
    quiet_until: time | None
    time_zone: str = ""


def preferences_of(person: User) -> Preferences:
    """Return the stored preferences, or an unsaved row with the defaults."""
    return Preferences.objects.filter(person=person).first() or Preferences(person=person)


def preferences_by_person(people: Iterable[User]) -> dict[int, Preferences]:
    """Return {person id: preferences} with one query."""
    persons = list(people)
    stored = Preferences.objects.in_bulk([person.pk for person in persons])
    return {person.pk: stored.get(person.pk) or Preferences(person=person) for person in persons}


def wants(preferences: Preferences, topic: str, way: str) -> bool:
    """Return whether the person wants notices of a topic this way."""
    chosen = preferences.choices.get(topic, {}).get(way)
    if isinstance(chosen, bool):
        return chosen
    known = topic_called(topic)
    return way == INBOX or known is None or known.is_mailed


def zone_of(preferences: Preferences) -> ZoneInfo:
    """Return the time zone of the quiet hours and the digest: the person's own choice, or that of the profile."""
    return ZoneInfo(preferences.time_zone or preferences.person.time_zone or "UTC")


@transaction.atomic
def save_preferences(wish: Wish, *, actor: User) -> Preferences:
    """Store the preferences of `actor`; raises Malformed."""
    if wish.digest not in Preferences.Digest.values:
        raise Malformed("Choose off or daily.", field="digest")
    if (wish.quiet_from is None) != (wish.quiet_until is None):
        raise Malformed("Quiet hours need a start and an end.", field="quiet_until")
    if wish.time_zone and wish.time_zone not in zoneinfo.available_timezones():
        raise Malformed("Unknown time zone. Use a name such as Europe/Berlin.", field="time_zone")
    names = {topic.name for topic in all_topics()}
    if unknown := sorted((wish.inbox | wish.mail) - names):
        raise Malformed(f"Unknown topic: {unknown[0][:60]}. Known: {', '.join(sorted(names))}.", field="inbox")
    row = Preferences.objects.select_for_update().filter(person=actor).first() or Preferences(person=actor)
    row.choices = row.choices | {name: {INBOX: name in wish.inbox, MAIL: name in wish.mail} for name in names}
    row.digest, row.digest_at, row.time_zone = wish.digest, wish.digest_at, wish.time_zone
    row.quiet_from, row.quiet_until = wish.quiet_from, wish.quiet_until
    row.save()
    return row


def mutes_of(person: User) -> list[Mute]:
    """Return the mutes of a person that still last, the first to end first."""
    return list(Mute.objects.filter(person=person, until__gt=clock.now()).order_by("until", "pk"))


def mutes_by_person(ids: Iterable[int]) -> Mapping[int, list[Mute]]:
    """Return {person id: mutes that still last} with one query."""
    found: dict[int, list[Mute]] = {pk: [] for pk in ids}
    for mute in Mute.objects.filter(person__in=list(found), until__gt=clock.now()):
        found[mute.person_id].append(mute)
    return found


def is_muted(mutes: Iterable[Mute], notice: Notice, repository: str) -> bool:
    """Return whether one of `mutes` covers the notice, which is about `repository`."""
    values = {
        Mute.Scope.ALL.value: "",
        Mute.Scope.REPOSITORY.value: repository,
        Mute.Scope.THREAD.value: notice.thread,
        Mute.Scope.TOPIC.value: notice.topic,
    }
    return any(mute.value == values.get(mute.scope) for mute in mutes)


@transaction.atomic
def mute(scope: str, value: str, until: datetime, *, actor: User) -> Mute:
    """Mute something until a time, or move the end of such a mute; raises Malformed."""
    now = clock.now()
    if scope not in Mute.Scope.values:
        raise Malformed(f"Choose one of {', '.join(Mute.Scope.values)}.", field="scope")
    value = "" if scope == Mute.Scope.ALL else value.strip()
    if scope != Mute.Scope.ALL and not value:
        raise Malformed("Enter what to mute: the repository, the thread or the topic.", field="value")
    if scope == Mute.Scope.TOPIC and topic_called(value) is None:
        raise Malformed(f"Unknown topic: {value[:60]}.", field="value")
    if not now < until <= now + MUTED_MAX:
        raise Malformed("Enter an end in the future, within a year.", field="until")
    Mute.objects.filter(person=actor, until__lte=now).delete()
    if Mute.objects.filter(person=actor).count() >= MUTES_MAX:
        raise Malformed(f"You have {MUTES_MAX} mutes already. End one first.", field="value")
    row, _ = Mute.objects.update_or_create(person=actor, scope=scope, value=value, defaults={"until": until})
    return row


def mute_for(actor: User, mute_id: int) -> Mute:
    """Return a mute of `actor`; raises NotFound."""
    row = Mute.objects.filter(person=actor, pk=mute_id).first()
    if row is None:
        raise NotFound("Mute not found, or you don't have access.")
    return row


def unmute(mute_id: int, *, actor: User) -> None:
    """End a mute of `actor` now; raises NotFound."""
    mute_for(actor, mute_id).delete()
