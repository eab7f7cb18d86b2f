"""Messages on their way: queue them with the notice, then send them outside of any transaction."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import ChannelDetails
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed
from lifecycle.core.states import move_row
from lifecycle.jobs import services as jobs
from lifecycle.notices.hours import next_attempt, next_digest, quiet_end
from lifecycle.notices.kinds import NOTIFY
from lifecycle.notices.models import Channel, Message, Notice, Preferences
from lifecycle.notices.preferences import zone_of

State = Message.State
WINDOW: Final = timedelta(seconds=20)  # notices of one thread within this time are one message
_TRIES: Final = 3


class NotSent(Exception):
    """An attempt failed. `is_final`: another one would fail as well. `is_gone`: the receiver wants no more messages.

    `retry_after_s`: the receiver asks to wait.
    """

    def __init__(
        self,
        why: str,
        *,
        status: int | None = None,
        is_final: bool = False,
        is_gone: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        self.is_final = is_final
        self.is_gone = is_gone
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is sent, made inside a transaction. `send` uses the network, returns the status, and raises NotSent."""

    subject: str
    body: str
    send: Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class NothingToSend:
    """Why a message is skipped."""

    why: str


Prepare = Callable[[Message], Outgoing | NothingToSend]


def send_to_channels(notice: Notice) -> None:
    """Queue a notice for the channels of its team and of the site. A chat gets those of a thread together."""
    team = notice.owner
    channels = Channel.objects.filter(Q(team=None) | Q(team=team), is_enabled=True, topics__contains=[notice.topic])
    now = clock.now()
    for channel in channels.order_by("pk"):
        is_chat = channel.kind == Channel.Kind.CHAT
        thread, due_at = (notice.thread, now + WINDOW) if is_chat else (f"notice-{notice.pk}", now)
        add_to_waiting(notice, due_at, channel=channel, kind=Message.Kind.NOTICE, thread=thread)


def mail_to(person: User, notice: Notice, preferences: Preferences) -> None:
    """Queue the mail about a notice: soon, after the quiet hours, or with the next digest."""
    now, zone = clock.now(), zone_of(preferences)
    if preferences.digest == Preferences.Digest.DAILY:
        due_at = next_digest(now, preferences.digest_at, zone)
        is_digest = True
    else:
        quiet = quiet_end(now, preferences.quiet_from, preferences.quiet_until, zone)
        due_at, is_digest = quiet or now + WINDOW, quiet is not None
    kind = Message.Kind.DIGEST if is_digest else Message.Kind.NOTICE
    add_to_waiting(notice, due_at, person=person, kind=kind, thread="" if is_digest else notice.thread)


@transaction.atomic
def add_to_waiting(notice: Notice, due_at: datetime, **place: Any) -> Message:
    """Add a notice to the message that waits for the same place and thread, or queue a new one."""
    for _ in range(_TRIES):
        message, is_new = Message.objects.get_or_create(
            **place, state=State.WAITING, defaults={"key": secrets.token_hex(16), "due_at": due_at}
        )
        # The lock keeps a worker from sending it before the notice is in it.
        row = Message.objects.select_for_update().filter(pk=message.pk, state=State.WAITING).first()
        if row is None:  # a worker was faster: it may have left this notice out
            continue
        row.notices.add(notice)
        if is_new:
            _queue(row)
        return row
    raise RuntimeError("A message was taken again and again.")


def queue_test(**place: Any) -> Message:
    """Queue a test message."""
    message = Message.objects.create(**place, kind=Message.Kind.TEST, key=secrets.token_hex(16), due_at=clock.now())
    _queue(message)
    return message


@transaction.atomic
def test_mail(*, actor: User) -> Message:
    """Queue a test mail to `actor`; raises Malformed when there is no address or no mail server."""
    if why := why_no_mail(actor):
        raise Malformed(why)
    return queue_test(person=actor)


def why_no_mail(person: User) -> str:
    """Return why mail does not reach a person; "" when it does."""
    if not settings.MAIL_IS_ON:
        return "No mail server is set. Ask an admin to set MAIL_URL."
    if not person.email:
        return "Your profile has no mail address. Enter one there."
    return ""


def _queue(message: Message) -> None:
    is_now = message.due_at <= clock.now()
    jobs.queue(NOTIFY, subject_id=message.pk, actor=system_user(), not_before=None if is_now else message.due_at)


def deliver(message_id: int, prepare: Prepare) -> timedelta | None:
    """Make one attempt, and return the time to the next one; None when it is over. Safe to run twice.

    A worker that dies in between leaves the message in `sending`: it is sent again, with the same key.
    """
    with transaction.atomic():
        message = _locked(message_id)
        if message is None or message.is_final:
            return None
        if message.due_at > (now := clock.now()):
            return message.due_at - now
        outgoing = prepare(message)
        if isinstance(outgoing, NothingToSend):
            _move(message, State.SKIPPED, last_error=outgoing.why)
            return None
        first = message.first_attempt_at or now
        _move(
            message, State.SENDING, attempts=message.attempts + 1, first_attempt_at=first,
            subject=outgoing.subject[:300], body=outgoing.body,
        )  # fmt: skip
    try:
        status = outgoing.send()
    except NotSent as error:
        return _not_sent(message_id, error)
    with transaction.atomic():
        message = _locked(message_id)
        if message is not None and message.state == State.SENDING:
            _move(message, State.SENT, sent_at=clock.now(), last_status=status, last_error="")
    return None


@transaction.atomic
def _not_sent(message_id: int, error: NotSent) -> timedelta | None:
    message = _locked(message_id)
    if message is None or message.state != State.SENDING:
        return None
    now = clock.now()
    changes: dict[str, Any] = {"last_status": error.status, "last_error": error.why[:500]}
    due_at = None
    if not error.is_final:
        due_at = next_attempt(
            message.first_attempt_at or now, message.attempts, now,
            jitter=random.random(), retry_after_s=error.retry_after_s,
        )  # fmt: skip
    if error.is_gone and message.channel_id is not None:
        _turn_off(message.channel_id, error.why)
    if due_at is None:
        _move(message, State.FAILED, **changes)
        return None
    _move(message, State.RETRYING, due_at=due_at, **changes)
    return max(due_at - now, timedelta(seconds=1))


def _turn_off(channel_id: int, why: str) -> None:
    channel = Channel.objects.select_for_update(of=("self",)).select_related("team").get(pk=channel_id)
    if not channel.is_enabled:
        return
    channel.is_enabled, channel.disabled_reason, channel.disabled_at = False, why[:300], clock.now()
    channel.revision += 1
    channel.save(update_fields=["is_enabled", "disabled_reason", "disabled_at", "revision"])
    details = ChannelDetails(channel=channel.name, kind=channel.kind, host=channel.host, topics=tuple(channel.topics))
    audit.record(
        Action.CHANNEL_TURNED_OFF, actor=system_user(), subject=channel, team=channel.team, reason=why, details=details
    )


@transaction.atomic
def queue_again(message_id: int) -> Message:
    """Queue a message again that was sent or failed: the same body and key, and a day of attempts. Raises Conflict."""
    message = _locked(message_id)
    if message is None or message.state not in {State.SENT, State.FAILED}:
        raise Conflict("Only a message that was sent or failed can be sent again.")
    _move(message, State.RETRYING, due_at=clock.now(), attempts=0, first_attempt_at=None)
    _queue(message)
    return message


@transaction.atomic
def give_up(message_id: int, why: str) -> None:
    """Mark a message as failed when its job ended without success."""
    message = _locked(message_id)
    if message is not None and not message.is_final:
        _move(message, State.FAILED, last_error=why[:500])


def _locked(message_id: int) -> Message | None:
    return Message.objects.select_for_update().filter(pk=message_id).first()


def _move(message: Message, state: str, **changes: Any) -> None:
    move_row(message, state, **changes)
