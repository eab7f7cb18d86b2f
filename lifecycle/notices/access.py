"""Look up notices, channels and messages by the ids in a request."""

from __future__ import annotations

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.rights import may
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason
from lifecycle.notices.models import Channel, InboxItem, Message
from lifecycle.notices.queries import channels_visible_to, inbox_of, messages_visible_to


def notice_for(actor: User, item_id: int) -> InboxItem:
    """Return a notice in the list of `actor`; raises NotFound."""
    item = inbox_of(actor).filter(pk=item_id).first()
    if item is None:
        raise NotFound("Notice not found, or you don't have access.")
    return item


def channel_for(actor: User, channel_id: int) -> Channel:
    """Return a channel that `actor` can manage; raises NotFound."""
    channel = channels_visible_to(actor).filter(pk=channel_id).first()
    if channel is None:
        raise NotFound("Channel not found, or you don't have access.")
    return channel


def lock_channel(actor: User, channel_id: int) -> Channel:
    """Return a channel that `actor` can manage, locked; raises NotFound."""
    channel_for(actor, channel_id)
    return Channel.objects.select_for_update(of=("self",)).select_related("team").get(pk=channel_id)


def message_for(actor: User, message_id: int) -> Message:
    """Return a message of a channel that `actor` can manage, or a mail to `actor`; raises NotFound."""
    message = messages_visible_to(actor).filter(pk=message_id).first()
    if message is None:
        raise NotFound("Message not found, or you don't have access.")
    return message


def why_not_manage(actor: User, team: Team | None) -> Reason | None:
    """Return why `actor` cannot manage channels of a team, or of the site without one; None when they can."""
    if team is None:
        is_admin = actor.is_active and actor.is_superuser
        return None if is_admin else Reason("Only an admin can manage channels for all teams. Make one for your team.")
    decision = may(actor, Verb.TEAM_MANAGE, team=team)
    return None if decision else Reason(decision.reason)
