"""Feeds as admins keep them: add, change, remove and synchronise, by hand or on a schedule."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from accounts.models import User
from accounts.queries import system_user
from lifecycle.advisories import services
from lifecycle.advisories.access import feed_for, feeds_for
from lifecycle.advisories.exploit_sync import ExploitReport, sync_exploits
from lifecycle.advisories.kinds import SYNC_FEED
from lifecycle.advisories.limits import Limits
from lifecycle.advisories.models import ExploitScore, Feed, KnownExploited
from lifecycle.advisories.services import SyncReport
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import FeedDetails
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, LifecycleError, Malformed, StaleVersion
from lifecycle.core.http import parse_outbound_url
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job

FEED_KINDS: Final = [choice for choice in Feed.Kind.choices if choice[0] != Feed.Kind.OWN]  # that admins add
EVERY_HOURS_MAX: Final = 24 * 30
MINUTES_MAX: Final = 24 * 60
MIB_MAX: Final = 16 * 1024
_NAME: Final = re.compile(r"[a-z0-9]+(?:[-._][a-z0-9]+)*")
_JITTER: Final = 0.1  # of the interval, so that many installations do not call a source at the same moment
_AGAIN_AFTER: Final = timedelta(hours=1)  # after a failure, unless the feed is due earlier
_ERRORS_SHOWN: Final = 20
_STALE: Final = "Another user changed this feed. Load it again, then repeat your change."
Progress = Callable[[int, int | None, str], None]  # done, total, text


@transaction.atomic
def add_feed(
    *,
    actor: User,
    name: str,
    kind: str,
    location: str,
    every_hours: int | None = 4,
    stale_after_hours: int = 72,
    max_minutes: int = 60,
    max_mib: int = 4096,
) -> Feed:
    """Add a feed and queue its first synchronisation. `every_hours` None: only by hand.

    Raises NotPermitted, Malformed, or Conflict when the name is taken.
    """
    feeds_for(actor)
    if Feed.objects.filter(name=name).exists():
        raise Conflict(f"There is already a feed named {name}. Choose another name.")
    feed = Feed(name=name, kind=kind, location=location.strip(), loaded_at=None)
    _set(feed, every_hours, stale_after_hours, max_minutes, max_mib)
    if not _NAME.fullmatch(name) or len(name) > 60:
        raise Malformed("A name has at most 60 small letters, digits, and -._ between them, such as osv-debian.")
    if kind not in dict(FEED_KINDS):
        raise Malformed(f"Choose one of these kinds: {', '.join(dict(FEED_KINDS))}.")
    feed.location = _checked_location(feed.location)
    feed.save()
    _record(Action.FEED_ADDED, feed, actor)
    _queue(feed, actor)
    return feed


@transaction.atomic
def change_feed(
    feed_id: int,
    *,
    actor: User,
    revision: int | None = None,
    location: str | None = None,
    every_hours: int | None = None,
    by_hand: bool | None = None,
    stale_after_hours: int | None = None,
    max_minutes: int | None = None,
    max_mib: int | None = None,
) -> Feed:
    """Change a feed; None keeps a value. `by_hand` turns its schedule off. With `revision`, only if nobody changed it.

    Raises NotPermitted, NotFound, Malformed, StaleVersion.
    """
    feed = _lock(actor, feed_id, revision)
    hours = feed.every_hours if every_hours is None else every_hours
    _set(
        feed,
        None if by_hand else hours,
        feed.stale_after_hours if stale_after_hours is None else stale_after_hours,
        feed.max_minutes if max_minutes is None else max_minutes,
        feed.max_mib if max_mib is None else max_mib,
    )
    if location is not None and location.strip() != feed.location:
        feed.location = _checked_location(location.strip())
    feed.revision += 1
    feed.save()
    _record(Action.FEED_CHANGED, feed, actor)
    return feed


@transaction.atomic
def remove_feed(feed_id: int, *, actor: User, revision: int | None = None) -> Job:
    """Queue the removal of a feed with all that it brought; its findings close. Return the job.

    Raises NotPermitted, NotFound, StaleVersion.
    """
    feed = _lock(actor, feed_id, revision)
    Feed.objects.filter(pk=feed.pk).update(due_at=None, every_hours=None, revision=feed.revision + 1)
    _record(Action.FEED_REMOVED, feed, actor)
    return jobs.queue(
        SYNC_FEED, subject_id=feed.pk, actor=actor, payload={"remove": True}, dedupe_key=f"feed-removal:{feed.pk}"
    )


@transaction.atomic
def sync_now(feed_id: int, *, actor: User, accept_smaller: bool = False) -> Job:
    """Queue a synchronisation, and return its job; one that waits already is returned instead.

    With `accept_smaller`, also what lost most of its records is taken. Raises NotPermitted, NotFound.
    """
    feed = feed_for(actor, feed_id)
    return _queue(feed, actor, accept_smaller=accept_smaller)


def _queue(feed: Feed, actor: User, *, accept_smaller: bool = False) -> Job:
    payload = {"accept_smaller": True} if accept_smaller else {}
    key = f"feed:{feed.pk}:{accept_smaller}"
    return jobs.queue(SYNC_FEED, subject_id=feed.pk, actor=actor, payload=payload, dedupe_key=key)


@transaction.atomic
def queue_due_feeds() -> int:
    """Queue the feeds whose time has come, and set their next time; return how many."""
    now = clock.now()
    rows = Feed.objects.select_for_update(skip_locked=True).filter(due_at__lte=now, every_hours__isnull=False)
    due = list(rows.order_by("pk"))
    for feed in due:
        feed.due_at = _next(now, feed.every_hours or 1)
        feed.save(update_fields=["due_at"])
        _queue(feed, system_user())
    return len(due)


def run_sync(feed: Feed, *, actor: User, progress: Progress, accept_smaller: bool = False) -> dict[str, Any]:
    """Synchronise a feed within its limits, store the result on it, and return that.

    A failure is stored with its reason and raised again. It changed nothing of a list, and of advisories only what was
    stored in whole batches, which the next run continues.
    """
    limits = Limits(feed.max_mib * 1024 * 1024, time.monotonic() + feed.max_minutes * 60)

    def told(directory: str, done: int, total: int) -> None:
        limits.check_time()
        progress(done, total, directory or feed.name)

    Feed.objects.filter(pk=feed.pk).update(tried_at=clock.now())
    shared: dict[str, Any] = {"feed_name": feed.name, "actor": actor, "accept_smaller": accept_smaller}
    try:
        place = str(place_of(feed.location))
        if feed.kind in {Feed.Kind.KEV, Feed.Kind.EPSS}:
            progress(0, None, "reading the list")
            services.group_again()
            report: ExploitReport | SyncReport = sync_exploits(feed.kind, place, limits=limits, **shared)
        else:
            progress(0, None, "reading the index")
            report = services.sync_feed(place, kind=feed.kind, progress=told, limits=limits, **shared)
    except LifecycleError as error:
        _failed(feed, error)
        raise
    result = _result_of(report)
    Feed.objects.filter(pk=feed.pk).update(problem=_problem_of(report), result=result)
    return result


def _failed(feed: Feed, error: LifecycleError) -> None:
    """Store why a run failed; try again within an hour if the feed has a schedule."""
    problem = error.message
    if error.code == "destination_forbidden":
        problem = f"{problem} If it is a mirror in your network, add its host to OUTBOUND_ALLOW."
    changes: dict[str, Any] = {"problem": problem[:500]}
    row = Feed.objects.filter(pk=feed.pk)
    row.update(**changes)
    soon = clock.now() + _AGAIN_AFTER * random.uniform(1 - _JITTER, 1 + _JITTER)
    row.filter(Q(due_at__gt=soon)).update(due_at=soon)


def _result_of(report: ExploitReport | SyncReport) -> dict[str, Any]:
    if isinstance(report, ExploitReport):
        return {"entries": report.entries, "added": report.added, "changed": report.changed, "removed": report.removed}
    return {
        "records": report.indexed,
        "stored": report.stored,
        "removed": report.tombstoned,
        "packages_rematched": report.packages_rematched,
        "unreadable_ranges": report.unreadable_count,
        "error_count": report.error_count,
        "errors": report.errors[:_ERRORS_SHOWN],
    }


def _problem_of(report: ExploitReport | SyncReport) -> str:
    """Return what could not be read in a run that did the rest; "" for nothing."""
    if isinstance(report, ExploitReport) or not report.error_count:
        return ""
    more = f" (and {report.error_count - 1:,} more)" if report.error_count > 1 else ""
    return f"{report.errors[0][:400]}{more}"


def run_removal(feed: Feed, *, progress: Progress) -> None:
    """Remove what a feed brought, in batches whose findings close with them, and then the feed itself."""
    progress(0, None, "removing")
    services.remove_advisories(feed, progress=lambda done, total: progress(done, total, "removing advisories"))
    with transaction.atomic():
        KnownExploited.objects.filter(feed=feed).delete()
        ExploitScore.objects.filter(feed=feed).delete()
        feed.delete()


def place_of(location: str) -> str | Path:
    """Return the address, or the folder or file below the setting FEEDS that a feed names. Raises Malformed.

    Admins of Gravingdock need not be admins of its machine, so that they name no other path.
    """
    if location.startswith(("http://", "https://")):
        parse_outbound_url(location)
        return location
    if not settings.FEEDS:
        raise Malformed("Feeds from folders are turned off. Set FEEDS to the folder that holds them.")
    root = Path(settings.FEEDS).resolve()
    path = (root / location.replace("\x00", "")).resolve()
    if "\x00" in location or "://" in location or not path.is_relative_to(root):
        raise Malformed(f"A folder must be below {settings.FEEDS}. Put the feed there, or use an https address.")
    return path


def _checked_location(location: str) -> str:
    if not location or len(location) > 500 or "\x00" in location:
        raise Malformed("Enter an https address, or a folder below the setting FEEDS.")
    place_of(location)
    return location


def _set(feed: Feed, every_hours: int | None, stale_after_hours: int, max_minutes: int, max_mib: int) -> None:
    for value, limit, words in (
        (every_hours, EVERY_HOURS_MAX, "The hours between two synchronisations"),
        (stale_after_hours, EVERY_HOURS_MAX, "The hours until the alarm"),
        (max_minutes, MINUTES_MAX, "The time limit in minutes"),
        (max_mib, MIB_MAX, "The size limit in MiB"),
    ):
        if value is not None and not 1 <= value <= limit:
            raise Malformed(f"{words} must be from 1 to {limit:,}.")
    if every_hours != feed.every_hours or feed.due_at is None:
        feed.due_at = None if every_hours is None else _next(clock.now(), every_hours)
    feed.every_hours, feed.stale_after_hours = every_hours, stale_after_hours
    feed.max_minutes, feed.max_mib = max_minutes, max_mib


def _next(now: datetime, hours: int) -> datetime:
    return now + timedelta(hours=hours) * random.uniform(1 - _JITTER, 1 + _JITTER)


def _lock(actor: User, feed_id: int, revision: int | None) -> Feed:
    feed_for(actor, feed_id)
    feed = Feed.objects.select_for_update().get(pk=feed_id)
    if revision is not None and revision != feed.revision:
        raise StaleVersion(_STALE)
    return feed


def _record(action: Action, feed: Feed, actor: User) -> None:
    details = FeedDetails(feed=feed.name, kind=feed.kind, location=feed.location, every_hours=feed.every_hours or 0)
    audit.record(action, actor=actor, subject=feed, details=details)
