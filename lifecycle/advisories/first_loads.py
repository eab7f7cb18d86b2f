"""When each folder of a feed was loaded the first time. What a first load brings is no difference to alert on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction

from lifecycle.advisories.models import Feed
from lifecycle.core import clock

# A folder that never can be read to its end is told about from then on: what it does have can matter.
BROKEN_MAX: Final = timedelta(days=7)


@transaction.atomic
def expect(feed: Feed, directories: Iterable[str]) -> None:
    """Note the folders that are new to a feed, before they are read. An older version did not note any."""
    row = Feed.objects.select_for_update().get(pk=feed.pk)
    at = row.loaded_at.isoformat() if row.loaded_at is not None and not row.loaded_folders else None
    names = {_key(name) for name in directories} - row.loaded_folders.keys()
    if names:
        row.loaded_folders |= dict.fromkeys(sorted(names), at)
        row.save(update_fields=["loaded_folders"])


@transaction.atomic
def note(feed: Feed, *, whole: Collection[str], partly: Collection[str]) -> None:
    """Note which folders were read to their end, and which only in part."""
    row, now = Feed.objects.select_for_update().get(pk=feed.pk), clock.now()
    for name in whole:
        at = row.loaded_folders.get(_key(name))
        if at is None or datetime.fromisoformat(at) > now:
            row.loaded_folders[_key(name)] = now.isoformat()
    for name in partly:
        if row.loaded_folders.get(_key(name)) is None:
            row.loaded_folders[_key(name)] = (now + BROKEN_MAX).isoformat()
    row.save(update_fields=["loaded_folders"])


def _key(directory: str) -> str:
    return directory[:60]  # as in Advisory.directory
