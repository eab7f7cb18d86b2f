"""How each message is sent: by the kind of its place."""

from __future__ import annotations

from lifecycle.core import sealing
from lifecycle.notices.chat import prepare_chat
from lifecycle.notices.mailing import prepare_mail
from lifecycle.notices.messages import NothingToSend, Outgoing
from lifecycle.notices.models import Channel, Message
from lifecycle.notices.webhooks import prepare_webhook


def prepare(message: Message) -> Outgoing | NothingToSend:
    """Return what to send, or why there is nothing to send."""
    if message.channel_id is None:
        return prepare_mail(message)
    channel = Channel.objects.get(pk=message.channel_id)
    if not channel.is_enabled:
        return NothingToSend("The channel is off.")
    try:
        if channel.kind == Channel.Kind.WEBHOOK:
            return prepare_webhook(message, channel)
        return prepare_chat(message, channel)
    except sealing.Unreadable:
        return NothingToSend("The stored address cannot be read. Enter it again.")
