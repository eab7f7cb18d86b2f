"""Read the notices in one's own list. No audit events: nothing else changes."""

from __future__ import annotations

from accounts.models import User
from lifecycle.core import clock
from lifecycle.notices.access import notice_for
from lifecycle.notices.models import InboxItem
from lifecycle.notices.queries import inbox_of


def mark_read(item_id: int, *, actor: User) -> InboxItem:
    """Mark one notice of `actor` as read, and return it; raises NotFound."""
    item = notice_for(actor, item_id)
    if item.read_at is None:
        item.read_at = clock.now()
        InboxItem.objects.filter(pk=item.pk, read_at=None).update(read_at=item.read_at)
    return item


def mark_all_read(*, actor: User) -> int:
    """Mark every notice that `actor` can see as read, and return how many were unread."""
    ids = list(inbox_of(actor, is_unread=True).values_list("pk", flat=True))
    return InboxItem.objects.filter(pk__in=ids, read_at=None).update(read_at=clock.now())
