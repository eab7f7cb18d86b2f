"""Who can see and manage feeds: admins."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.models import User
from lifecycle.advisories.models import Feed
from lifecycle.authority.rights import is_above_grants
from lifecycle.core.errors import NotFound, NotPermitted


def feeds_for(actor: User) -> QuerySet[Feed]:
    """Return all feeds but that of private advisories; raises NotPermitted unless `actor` is an admin."""
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can manage feeds. Ask an admin.")
    return Feed.objects.exclude(kind=Feed.Kind.OWN)


def feed_for(actor: User, feed_id: int) -> Feed:
    """Return one of `feeds_for`; raises NotPermitted, NotFound."""
    feed = feeds_for(actor).filter(pk=feed_id).first()
    if feed is None:
        raise NotFound("Feed not found.")
    return feed
