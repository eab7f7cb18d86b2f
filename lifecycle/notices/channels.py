"""Actions on channels: create, change, delete, test, and send a message again."""

from __future__ import annotations

from collections.abc import Collection

from django.db import transaction

from accounts.models import Team, User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import ChannelDetails
from lifecycle.core import clock, sealing
from lifecycle.core.errors import Conflict, Malformed, StaleVersion
from lifecycle.core.reasons import refuse_if
from lifecycle.notices import chat, webhooks
from lifecycle.notices.access import lock_channel, message_for, why_not_manage
from lifecycle.notices.messages import queue_again, queue_test
from lifecycle.notices.models import Channel, Message
from lifecycle.notices.topics import all_topics, topic_called

CHANNELS_MAX = 50  # of a team, and of the site


@transaction.atomic
def create_channel(
    team: Team | None, name: str, kind: str, address: str, topics: Collection[str], *, actor: User
) -> tuple[Channel, str]:
    """Create a channel, and return it with the secret of a webhook, which is shown once ("" for chat).

    Raises NotPermitted, Malformed, Conflict when the name is taken.
    """
    refuse_if(why_not_manage(actor, team))
    if kind not in Channel.Kind.values:
        raise Malformed(f"Choose one of {', '.join(Channel.Kind.values)}.", field="kind")
    name, topics = _checked_name(name), _checked_topics(topics)
    address = _checked_address(kind, address)
    if Channel.objects.filter(team=team, name=name).exists():
        raise Conflict(f"There is already a channel named {name}. Choose another name.")
    if Channel.objects.filter(team=team).count() >= CHANNELS_MAX:
        raise Conflict(f"There are {CHANNELS_MAX} channels already. Delete one first.")
    channel = Channel.objects.create(team=team, name=name, kind=kind, topics=sorted(topics), created_by=actor)
    secret = webhooks.new_secret() if kind == Channel.Kind.WEBHOOK else ""
    _seal(channel, address)
    channel.secret_sealed = sealing.seal(secret, channel, "secret_sealed")
    channel.save(update_fields=["address_sealed", "secret_sealed", "host"])
    _record(Action.CHANNEL_CREATED, channel, actor)
    return channel, secret


@transaction.atomic
def change_channel(
    channel_id: int,
    *,
    actor: User,
    name: str,
    topics: Collection[str],
    is_enabled: bool,
    address: str = "",
    revision: int | None = None,
) -> Channel:
    """Change a channel; without `address`, it keeps its own. Turning it on forgets why it was off.

    Raises NotFound, NotPermitted, Malformed, Conflict, StaleVersion when it has another `revision` by now.
    """
    channel = lock_channel(actor, channel_id)
    if revision is not None and revision != channel.revision:
        raise StaleVersion("Somebody else has changed this channel meanwhile. Load it again.")
    name, chosen = _checked_name(name), _checked_topics(topics)
    if Channel.objects.filter(team=channel.team, name=name).exclude(pk=channel.pk).exists():
        raise Conflict(f"There is already a channel named {name}. Choose another name.")
    if address.strip():
        _seal(channel, _checked_address(channel.kind, address))
    if is_enabled != channel.is_enabled:
        channel.disabled_at = None if is_enabled else clock.now()
        channel.disabled_reason = "" if is_enabled else f"Turned off by {actor}."
    channel.name, channel.topics, channel.is_enabled = name, sorted(chosen), is_enabled
    channel.revision += 1
    channel.save()
    _record(Action.CHANNEL_CHANGED, channel, actor)
    return channel


@transaction.atomic
def delete_channel(channel_id: int, *, actor: User) -> None:
    """Delete a channel with its messages. Raises NotFound, NotPermitted."""
    channel = lock_channel(actor, channel_id)
    _record(Action.CHANNEL_DELETED, channel, actor)
    channel.delete()


@transaction.atomic
def test_channel(channel_id: int, *, actor: User) -> Message:
    """Queue a test message. Raises NotFound, NotPermitted, Conflict when the channel is off."""
    channel = lock_channel(actor, channel_id)
    _refuse_if_off(channel)
    return queue_test(channel=channel)


@transaction.atomic
def redeliver(message_id: int, *, actor: User) -> Message:
    """Send a message of a channel again, as it was. Raises NotFound, NotPermitted, Conflict."""
    message = message_for(actor, message_id)
    if message.channel_id is None:
        raise Conflict("Mail is not sent again. Its notices are in the list.")
    _refuse_if_off(lock_channel(actor, message.channel_id))
    return queue_again(message.pk)


def _refuse_if_off(channel: Channel) -> None:
    if not channel.is_enabled:
        raise Conflict("The channel is off. Turn it on first.")


def _checked_name(text: str) -> str:
    name = text.strip()
    if not name:
        raise Malformed("Enter a name.", field="name")
    return name[:60]


def _checked_topics(names: Collection[str]) -> Collection[str]:
    if unknown := sorted(name for name in names if topic_called(name) is None):
        known = ", ".join(topic.name for topic in all_topics())
        raise Malformed(f"Unknown topic: {unknown[0][:60]}. Known: {known}.", field="topics")
    if not names:
        raise Malformed("Choose at least one topic.", field="topics")
    return set(names)


def _checked_address(kind: str, address: str) -> str:
    return webhooks.checked_address(address) if kind == Channel.Kind.WEBHOOK else chat.checked_address(address)


def _seal(channel: Channel, address: str) -> None:
    channel.address_sealed = sealing.seal(address, channel, "address_sealed")
    is_webhook = channel.kind == Channel.Kind.WEBHOOK
    channel.host = (webhooks.host_of(address) if is_webhook else chat.host_of(address))[:200]


def _record(action: Action, channel: Channel, actor: User) -> None:
    details = ChannelDetails(channel=channel.name, kind=channel.kind, host=channel.host, topics=tuple(channel.topics))
    audit.record(action, actor=actor, subject=channel, team=channel.team, details=details)
