"""One look at what changed since the last one: raise, refresh and close alerts, and tell the teams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Max, Min, Q, QuerySet

from lifecycle.advisories.kinds import SYNC_FEED
from lifecycle.advisories.models import Feed
from lifecycle.alerts import findings
from lifecycle.alerts.models import Alert, AlertPass, ChangedPackages
from lifecycle.alerts.overdue import look_overdue
from lifecycle.alerts.raising import raise_alerts
from lifecycle.alerts.seen import Change, listed_packages, look, seed
from lifecycle.alerts.telling import tell_teams
from lifecycle.alerts.types import Cause, all_kinds
from lifecycle.core import locks
from lifecycle.environments.models import Slot
from lifecycle.jobs.models import Job
from lifecycle.policies.due_dates import due_dates
from lifecycle.registry.models import TagEvent
from lifecycle.sbom.models import PackageVersion

SETTLES_AFTER: Final = timedelta(seconds=3)  # changes of one synchronisation are told together
WAITS_AT_MOST: Final = timedelta(minutes=15)  # for a synchronisation that does not end
PLACES_EVERY: Final = timedelta(minutes=1)  # how often moved tags are looked at
ALL_EVERY: Final = timedelta(hours=1)  # how often each live alert is checked, whatever changed
OVERLAP: Final = timedelta(minutes=2)  # a transaction that began before the last look can commit after it
REMINDS_AFTER: Final = timedelta(hours=24)
RECHECKS_AFTER: Final = timedelta(hours=24)  # after somebody resolved an alert: is the cause gone?
_LOCK: Final = 0x616C6572  # "aler"
_BATCH: Final = 20_000  # package versions
_RECHECKED_MAX: Final = 5000
_REMINDED_MAX: Final = 5000


def is_due(now: datetime) -> bool:
    """Return whether there is something to look at now."""
    last = AlertPass.objects.first()
    if last is None:
        return True
    pending = ChangedPackages.objects.aggregate(oldest=Min("at"), newest=Max("at"))
    if pending["oldest"] is not None:
        if pending["oldest"] <= now - WAITS_AT_MOST:
            return True
        is_settled = pending["newest"] <= now - SETTLES_AFTER
        if is_settled and not Job.objects.filter(kind=SYNC_FEED.name, state="running").exists():
            return True
    if (last.exploits_read_at, last.due_revision) != (exploits_read_at(), due_dates().revision):
        return True
    is_waiting = last.looked_at <= now - PLACES_EVERY and (_moved_since(last.looked_at) or _wakes(now).exists())
    return bool(is_waiting) or last.checked_at <= now - ALL_EVERY


def exploits_read_at() -> datetime | None:
    """Return when a KEV list was last read; None without one."""
    lists = Feed.objects.filter(kind=Feed.Kind.KEV, synced_at__isnull=False)
    found: datetime | None = lists.aggregate(at=Max("synced_at"))["at"]
    return found


def _moved_since(moment: datetime) -> set[int]:
    """Return the repositories in which a tag moved, or whose image in an environment changed."""
    since = moment - OVERLAP
    tags = TagEvent.objects.filter(at__gte=since).values_list("tag__repository", "tag__repository__source")
    slots = Slot.objects.filter(since__gte=since).values_list("repository", "repository__source")
    return {pk for pair in (*tags, *slots) for pk in pair if pk is not None}


def _wakes(now: datetime) -> QuerySet[Alert]:
    return Alert.objects.filter(state=Alert.State.SNOOZED, snoozed_until__lte=now)


def remember_all(now: datetime, fence: Callable[[Callable[[], None]], None]) -> None:
    """Remember all findings the first time, without telling anybody: nobody knows what is new among them."""
    pending = list(ChangedPackages.objects.values_list("pk", flat=True))
    last: int | None = 0

    def one() -> None:
        nonlocal last
        last = seed(last or 0)

    while last is not None:
        fence(one)

    def end() -> None:
        ChangedPackages.objects.filter(pk__in=pending).delete()
        AlertPass.objects.create(
            looked_at=now, checked_at=now, exploits_read_at=exploits_read_at(), due_revision=due_dates().revision
        )

    fence(end)


def look_now(now: datetime) -> list[Alert]:
    """Look at everything that changed, in the caller's transaction; return the new alerts.

    Safe to run twice: what was seen is no difference any more. Raises nothing before the first `remember_all`.
    """
    locks.wait_for(_LOCK)
    last = AlertPass.objects.select_for_update().first()
    if last is None:
        return []
    read_at = exploits_read_at()
    pending = list(ChangedPackages.objects.order_by("pk"))
    is_kev_due = read_at != last.exploits_read_at
    is_kev_new = last.exploits_read_at is None
    changes, renamed = _changes(pending, last.looked_at, is_kev_due=is_kev_due, is_kev_new=is_kev_new)
    findings.rename(renamed, now)
    new = findings.raise_for(changes, now)
    is_full = last.checked_at <= now - ALL_EVERY
    is_decided = any(not row.package_ids for row in pending)
    moved = None if is_full or is_decided else _moved_since(last.looked_at)
    live = [alert for alert in _live(changes, moved) if alert.pk not in {row.pk for row in new}]
    fixed, handed_over = findings.check(live, now, _answered(changes, moved))
    fixed += findings.say_fixed(changes, now, {(alert.vulnerability, alert.team_id) for alert in fixed})
    again = _persisting(now)
    again += findings.raise_undecided(now) if is_full or is_decided else []
    revision = due_dates().revision
    late = look_overdue(now) if is_full or revision != last.due_revision else []
    tell_teams([*new, *fixed, *handed_over, *again, *late], now)
    woken = _woken(now)
    unanswered = [row for row in _unanswered(now) if row.pk not in {alert.pk for alert in woken}]
    tell_teams([*woken, *unanswered], now, is_reminder=True)
    last.looked_at, last.exploits_read_at, last.due_revision = now, read_at, revision
    last.checked_at = now if is_full else last.checked_at
    last.save()
    return [*new, *handed_over, *again, *late]


def _changes(
    pending: Sequence[ChangedPackages], looked_at: datetime, *, is_kev_due: bool, is_kev_new: bool
) -> tuple[list[Change], dict[str, str]]:
    changed = {pk for row in pending if not row.is_first for pk in row.package_ids}
    first = {pk for row in pending if row.is_first for pk in row.package_ids}
    unmatched = set(PackageVersion.objects.filter(pk__in=first, is_unmatched=True).values_list("pk", flat=True))
    if unmatched:  # their first findings are still to come
        ChangedPackages.objects.create(package_ids=sorted(unmatched), is_first=True)
    ChangedPackages.objects.filter(pk__in=[row.pk for row in pending]).delete()
    if is_kev_due:
        changed.update(listed_packages())
    ids = sorted(changed | (first - unmatched))
    changes: list[Change] = []
    renamed: dict[str, str] = {}
    for start in range(0, len(ids), _BATCH):
        seen = look(ids[start : start + _BATCH], silent=first, is_kev_new=is_kev_new, looked_at=looked_at)
        changes += seen.changes
        renamed |= seen.renamed
    return changes, renamed


def _live(changes: Iterable[Change], moved: set[int] | None) -> list[Alert]:
    """Return the live alerts that a change can concern, locked; all of them for None."""
    rows = Alert.objects.select_for_update(of=("self",)).exclude(state=Alert.State.RESOLVED).order_by("pk")
    if moved is None:
        return list(rows)
    named = {change.vulnerability for change in changes}
    if moved:
        named |= set(rows.filter(repository_ids__overlap=sorted(moved)).values_list("vulnerability", flat=True))
    return list(rows.filter(vulnerability__in=named)) if named else []


def _answered(changes: Iterable[Change], moved: set[int] | None) -> list[Alert]:
    """Return the alerts that a person resolved while images of others waited, if a change can concern them."""
    rows = Alert.objects.filter(
        resolved_by__isnull=False, is_handed_over=False, kind__in=findings.LASTING, evidence__waiting__gt=0
    )
    if moved is not None:
        named = {change.vulnerability for change in changes}
        rows = rows.filter(Q(vulnerability__in=named) | Q(repository_ids__overlap=sorted(moved)))
    return list(rows.order_by("pk"))


def _woken(now: datetime) -> list[Alert]:
    """Open alerts again whose snooze is over, and return them."""
    rows = list(_wakes(now).select_for_update(of=("self",)).order_by("pk"))
    woken = Alert.objects.filter(pk__in=[row.pk for row in rows], state=Alert.State.SNOOZED)
    woken.update(state=Alert.State.OPEN, snoozed_until=None)
    return rows


def _unanswered(now: datetime) -> list[Alert]:
    """Return the alerts that nobody answered for a day. They are told a second time, and then no more."""
    rows = Alert.objects.filter(state=Alert.State.OPEN, reminded_at=None, told_at__lte=now - REMINDS_AFTER)
    return list(rows.order_by("pk")[:_REMINDED_MAX])


def _persisting(now: datetime) -> list[Alert]:
    """Raise alerts again that a person resolved a day ago although their cause is still there; return the new ones."""
    rows = Alert.objects.filter(
        resolved_by__isnull=False, rechecked_at=None, resolved_at__lte=now - RECHECKS_AFTER
    ).order_by("pk")
    resolved = list(rows[:_RECHECKED_MAX])
    causes: list[Cause] = []
    for kind in all_kinds():
        if mine := [row for row in resolved if row.kind == kind.name]:
            causes += kind.causes_now(mine).values()
    live = Alert.objects.filter(fingerprint__in={cause.fingerprint for cause in causes})
    told = set(live.exclude(state=Alert.State.RESOLVED).values_list("fingerprint", flat=True))
    made = raise_alerts([cause for cause in causes if cause.fingerprint not in told], now)
    Alert.objects.filter(pk__in=[row.pk for row in resolved]).update(rechecked_at=now)
    return made
