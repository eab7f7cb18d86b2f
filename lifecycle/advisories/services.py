"""Synchronise advisory feeds and keep matches up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final, TypeVar

from django.db import connection, transaction

from accounts.models import User
from lifecycle import events
from lifecycle.advisories import coverage, first_loads, grouping, matching
from lifecycle.advisories.cve_source import CveSource
from lifecycle.advisories.exploit_sync import feed_of_kind
from lifecycle.advisories.kinds import MATCH
from lifecycle.advisories.limits import Limits
from lifecycle.advisories.models import Advisory, AffectedInterval, Feed, Match
from lifecycle.advisories.queries import unreadable_ranges
from lifecycle.advisories.records import OsvRecord, is_same_time, parse_record, parse_time
from lifecycle.advisories.sources import FeedUnreadable, Source, open_source
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import AdvisoriesSynced
from lifecycle.core import clock
from lifecycle.core.errors import LifecycleError, Malformed
from lifecycle.jobs import services as jobs
from lifecycle.sbom import services as sbom
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import KEY_VERSION

_Item = TypeVar("_Item")
BATCH: Final = 1000  # records per transaction; a crash repeats at most this many
ERRORS_KEPT: Final = 1000
_INTERVAL_BATCH: Final = 20_000
_GUARDED_FROM: Final = 100  # stored records of a folder; fewer can all disappear
_MATCH_BATCH: Final = 5000  # package versions per job
_WRITTEN: Final = (
    "directory", "modified", "modified_at", "published_at", "withdrawn_at", "tombstoned_at", "aliases", "upstream",
    "related", "summary", "details", "severity", "own_severity", "severity_source", "vulnerability",
    "is_grouped", "score", "vector", "references", "key_version", "updated_at",
)  # fmt: skip
Progress = Callable[[str, int, int], None]  # directory, records done, records to fetch


@dataclass
class SyncReport:
    """The result of one synchronisation."""

    feed: str
    directories: int = 0
    broken_directories: int = 0  # unreadable, so that the feed is as old as before
    indexed: int = 0  # records in the indexes
    stored: int = 0  # new or changed
    tombstoned: int = 0
    packages_rematched: int = 0
    unreadable: list[str] = field(default_factory=list)  # "id: package: why", of ranges that cannot be read
    unreadable_count: int = 0
    errors: list[str] = field(default_factory=list)
    error_count: int = 0

    def fail(self, message: str) -> None:
        """Record one error. The synchronisation continues."""
        self.error_count += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(message[:500])


def sync_feed(
    location: str,
    *,
    feed_name: str,
    actor: User,
    kind: str = Feed.Kind.OSV,
    progress: Progress | None = None,
    accept_smaller: bool = False,
    limits: Limits | None = None,
) -> SyncReport:
    """Update the feed's advisories and their matches from the OSV export or the CVE records at `location`.

    Every (id, modified) in the indexes is compared with the stored rows. Records with another time, earlier or later,
    are fetched. Each batch commits with its matches, so an interrupted run can continue. Records that disappeared from
    a readable folder are tombstoned. If most of a folder disappeared, they stay unless `accept_smaller`, because its
    index is more likely cut off. An unreadable record is reported, and its stored row stays unchanged.
    Raises FeedUnreadable when no export can be read, and Malformed when the feed is of another kind.
    """
    is_cve = kind == Feed.Kind.CVE
    opened = CveSource.open(location, limits=limits) if is_cve else nullcontext(open_source(location, limits=limits))
    started = clock.now()
    with opened as source:
        directories = source.directories()
        _derive_packages_again()
        group_again()
        with transaction.atomic():
            feed = feed_of_kind(feed_name, kind, location)
        first_loads.expect(feed, directories)
        report = SyncReport(feed=feed.name)
        indexes, whole = _sync_directories(feed, source, directories, location, report=report, progress=progress)
    _tombstone(feed, indexes, report, started=started, accept_smaller=accept_smaller)
    _report_unreadable(feed, report)
    coverage.refresh_coverage()
    with transaction.atomic():
        first_loads.note(feed, whole=whole, partly=indexes.keys() - whole)
        Feed.objects.filter(pk=feed.pk, loaded_at=None).update(loaded_at=clock.now())
        if not report.broken_directories:
            Feed.objects.filter(pk=feed.pk).update(synced_at=clock.now())
        audit.record(
            Action.ADVISORIES_SYNCED,
            actor=actor,
            subject=feed,
            details=AdvisoriesSynced(
                stored=report.stored,
                tombstoned=report.tombstoned,
                errors=report.error_count,
                unreadable=report.unreadable_count,
            ),
        )
    return report


def _sync_directories(
    feed: Feed,
    source: Source,
    directories: Sequence[str],
    location: str,
    *,
    report: SyncReport,
    progress: Progress | None,
) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Store what changed in each folder; return the indexes that could be read, and the folders read to their end.

    Raises FeedUnreadable if no index could be read.
    """
    indexes: dict[str, dict[str, str]] = {}
    whole = set()
    for directory in directories:
        try:
            indexes[directory] = source.index(directory)
        except LifecycleError as error:
            report.fail(f"{directory or location}: {error.message}")
            report.broken_directories += 1
            continue
        report.directories += 1
        report.indexed += len(indexes[directory])
        if _sync_directory(feed, source, directory, indexes[directory], report=report, progress=progress):
            whole.add(directory)
        coverage.refresh_coverage()
    if directories and not indexes:
        raise FeedUnreadable(f"No index in {location} can be read: {report.errors[0]}")
    return indexes, whole


def _sync_directory(
    feed: Feed, source: Source, directory: str, index: dict[str, str], *, report: SyncReport, progress: Progress | None
) -> bool:
    """Store what changed in one folder; return whether it was read to its end."""
    changed_ids = _changed_ids(feed, directory, index)
    done = 0
    try:
        for batch in _batches(source.records(directory, {osv_id: index[osv_id] for osv_id in changed_ids})):
            records: list[OsvRecord] = []
            for osv_id, content in batch:
                try:
                    if isinstance(content, Malformed):
                        raise content
                    records.append(parse_record(content, osv_id=osv_id))
                except Malformed as error:
                    report.fail(f"{directory}: {error.message}" if directory else error.message)
            changed = _store(feed, directory, records, index)
            report.stored += len(records)
            report.packages_rematched += changed
            done += len(batch)
            if progress is not None:
                progress(directory, done, len(changed_ids))
    except LifecycleError as error:  # the source failed: stored batches are kept, and the next run continues
        report.fail(f"{directory}: {error.message}")
        report.broken_directories += 1
        return False
    return True


def _batches(items: Iterable[_Item], size: int | None = None) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size or BATCH)):
        yield batch


def _is_newer(left: str, right: str) -> bool:
    """Return whether the time `left` is after `right`. Invalid times are compared as text."""
    first, second = parse_time(left), parse_time(right)
    return first > second if first is not None and second is not None else left > right


def _changed_ids(feed: Feed, directory: str, index: dict[str, str]) -> list[str]:
    """Return the ids to fetch, sorted: new and changed records, and those whose intervals have another KEY_VERSION.

    In its own folder, a record is fetched when the index has another time for it. An id in two folders of a feed is one
    record, and the newer time wins.
    """
    rows = Advisory.objects.filter(feed=feed).values_list(
        "osv_id", "modified", "directory", "tombstoned_at", "key_version"
    )
    stored = {row[0]: row[1:] for row in rows.iterator(chunk_size=10_000) if row[0] in index}
    changed_ids = []
    for osv_id in sorted(index):
        if osv_id in stored:
            modified, home, tombstoned_at, key_version = stored[osv_id]
            is_same = modified == index[osv_id]
            is_current = key_version == KEY_VERSION and tombstoned_at is None
            if is_current and (is_same or (home != directory and not _is_newer(index[osv_id], modified))):
                continue
        changed_ids.append(osv_id)
    return changed_ids


@transaction.atomic
def _store(feed: Feed, directory: str, records: list[OsvRecord], index: dict[str, str]) -> int:
    """Store `records` with their intervals and matches; return the number of package versions with changed matches."""
    if not records:
        return 0
    now = clock.now()
    names = [record.osv_id for record in records]
    before = Advisory.objects.filter(feed=feed, osv_id__in=names).values_list("aliases", "upstream")
    named = {name for lists in before for each in lists for name in each}  # before this change
    rows = [_row(feed, directory, record, index[record.osv_id], now) for record in records]
    Advisory.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["feed", "osv_id"], update_fields=list(_WRITTEN)
    )
    ids = dict(Advisory.objects.filter(feed=feed, osv_id__in=names).values_list("osv_id", "pk"))
    AffectedInterval.objects.filter(advisory_id__in=ids.values()).delete()
    _store_intervals(records, ids)
    return _rematch(ids.values(), regrouped=grouping.regroup({*names, *named}))


def store_own(feed: Feed, record: OsvRecord) -> int:
    """Store a private advisory and match it again; return the number of package versions with changed matches.

    Runs in the caller's transaction, which has checked and locked it.
    """
    return _store(feed, "", [record], {record.osv_id: record.modified})


def _row(feed: Feed, directory: str, record: OsvRecord, modified: str, now: datetime) -> Advisory:
    # Store the index's text, because the next index is compared with it. If the record has another time than the index
    # (an outdated copy), store the record's time, so that the next run fetches it again.
    stated = (modified if is_same_time(modified, record.modified) else record.modified)[:40]
    return Advisory(
        feed=feed,
        osv_id=record.osv_id,
        directory=directory[:60],
        modified=stated,
        modified_at=parse_time(stated),
        published_at=record.published_at,
        withdrawn_at=record.withdrawn_at,
        tombstoned_at=None,
        aliases=list(record.aliases),
        upstream=list(record.upstream),
        related=list(record.related),
        summary=record.summary,
        details=record.details,
        severity=record.severity,
        own_severity=record.severity,
        vulnerability=record.osv_id,
        is_grouped=record.withdrawn_at is not None,
        score=record.score,
        vector=record.vector,
        references=record.references,
        key_version=KEY_VERSION,
        updated_at=now,
    )


# One array per column instead of one parameter per value: a feed has hundreds of thousands of rows, and formatting
# single parameters took most of the time of a synchronisation.
_INTERVALS: Final = """
INSERT INTO lifecycle_affectedinterval
       (advisory_id, ecosystem, release, name, scheme, low, low_inclusive, high, high_inclusive, low_text, high_text,
        fixed_version, exact_version, is_unevaluated, problem)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::boolean[],
                     %s::bytea[], %s::boolean[], %s::text[], %s::text[], %s::text[], %s::text[], %s::boolean[],
                     %s::text[])
"""


def _store_intervals(records: list[OsvRecord], ids: dict[str, int]) -> None:
    rows = [
        (
            ids[record.osv_id], item.ecosystem, item.release, item.name, item.scheme, item.interval.low,
            item.interval.low_inclusive, item.interval.high, item.interval.high_inclusive, item.interval.low_text,
            item.interval.high_text, item.interval.fixed_version, item.interval.exact_version,
            item.interval.is_unevaluated, item.interval.problem,
        )
        for record in records
        for item in record.affected
    ]  # fmt: skip
    with connection.cursor() as cursor:
        for part in _batches(rows, _INTERVAL_BATCH):
            cursor.execute(_INTERVALS, [list(column) for column in zip(*part, strict=True)])


def _rematch(advisory_ids: Collection[int], *, regrouped: Collection[int] = ()) -> int:
    """Match these advisories again; return the number of package versions whose findings changed.

    Those of `regrouped` changed their name or severity, which changes counts even where no match changes.
    """
    since = matching.begin()
    changed = matching.match_advisories({*advisory_ids, *regrouped})
    if regrouped:
        live = Match.objects.filter(advisory__in=list(regrouped), valid_to=None)
        changed |= set(live.values_list("package_id", flat=True))
    _publish(changed, since)
    return len(changed)


def group_again() -> None:
    """Group the advisories that an older version of Gravingdock stored without doing so."""
    ungrouped = Advisory.objects.filter(is_grouped=False, withdrawn_at=None, tombstoned_at=None).order_by("pk")
    while names := list(ungrouped.values_list("osv_id", flat=True)[:BATCH]):
        with transaction.atomic():
            _rematch((), regrouped=grouping.regroup(names))


def _tombstone(
    feed: Feed, indexes: dict[str, dict[str, str]], report: SyncReport, *, started: datetime, accept_smaller: bool
) -> None:
    """Tombstone the records that are in no index of this run, for the folders that were read. Nothing is deleted.

    A record that was written since the run started stays: another run read a newer index.

    A folder that lost most of its records keeps them, and that is an error of the run: an index that was cut off would
    close most findings.
    """
    present: set[str] = set().union(*indexes.values())
    absent: list[int] = []
    for directory in indexes:
        live = Advisory.objects.filter(feed=feed, tombstoned_at=None, directory=directory)
        stored = list(live.values_list("pk", "osv_id", "updated_at").iterator(chunk_size=10_000))
        missing = [pk for pk, osv_id, written_at in stored if osv_id not in present and written_at < started]
        if not accept_smaller and len(stored) >= _GUARDED_FROM and len(missing) * 2 > len(stored):
            report.broken_directories += 1
            report.fail(
                f"{directory or feed.name}: the index lacks {len(missing):,} of {len(stored):,} stored records, which"
                " stay. If that is right, synchronise with --accept-smaller."
            )
            continue
        absent += missing
    for batch in _batches(absent):
        with transaction.atomic():
            Advisory.objects.filter(pk__in=batch).update(tombstoned_at=clock.now())
            gone = Advisory.objects.filter(pk__in=batch).values_list("osv_id", "aliases", "upstream")
            names = {name for osv_id, *lists in gone for name in (osv_id, *lists[0], *lists[1])}
            report.packages_rematched += _rematch(batch, regrouped=grouping.regroup(names))
    report.tombstoned = len(absent)


def remove_advisories(feed: Feed, *, progress: Callable[[int, int], None]) -> None:
    """Close the findings of all advisories of a feed, and delete the advisories, in batches. Safe to continue."""
    total = Advisory.objects.filter(feed=feed).count()
    rows = Advisory.objects.filter(feed=feed).order_by("pk").values_list("pk", "osv_id", "aliases", "upstream")
    done = 0
    while batch := list(rows[:BATCH]):
        ids = [pk for pk, *_ in batch]
        names = {name for _, osv_id, *lists in batch for name in (osv_id, *lists[0], *lists[1])}
        with transaction.atomic():
            Advisory.objects.filter(pk__in=ids).update(tombstoned_at=clock.now())
            _rematch(ids, regrouped=grouping.regroup(names))
            Match.objects.filter(advisory__in=ids).delete()
            AffectedInterval.objects.filter(advisory__in=ids).delete()
            Advisory.objects.filter(pk__in=ids).delete()
        done += len(batch)
        progress(done, total)
    coverage.refresh_coverage()


def _report_unreadable(feed: Feed, report: SyncReport) -> None:
    """Count and name the ranges of the feed that cannot be read, also those that an earlier run stored."""
    rows = unreadable_ranges(feed).values_list("advisory__osv_id", "ecosystem", "name", "problem").distinct()
    for osv_id, ecosystem, name, problem in rows.order_by("advisory__osv_id", "ecosystem", "name", "problem"):
        report.unreadable_count += 1
        if len(report.unreadable) < ERRORS_KEPT:
            report.unreadable.append(f"{osv_id}: {ecosystem} {name}: {problem}")


def _publish(package_ids: set[int], since: datetime | None = None) -> None:
    if package_ids:
        events.publish(events.MatchesChanged(frozenset(package_ids), since))


def queue_matching(package_ids: Sequence[int], *, image_id: int, actor_id: int) -> None:
    """Queue jobs that match new package versions, in batches and in the caller's transaction."""
    actor = User.objects.get(pk=actor_id)
    for start in range(0, len(package_ids), _MATCH_BATCH):
        payload = {"package_ids": list(package_ids[start : start + _MATCH_BATCH])}
        jobs.queue(MATCH, subject_id=image_id, actor=actor, payload=payload)


def _derive_packages_again() -> None:
    """Derive and match the package versions again whose coordinates are those of an older version of Gravingdock."""
    outdated = PackageVersion.objects.filter(key_version__lt=KEY_VERSION).order_by("pk").values_list("pk", flat=True)
    while package_ids := list(outdated[: matching.BATCH]):
        with transaction.atomic():
            sbom.derive_again(package_ids)
            match_packages(package_ids)


@transaction.atomic
def match_packages(package_ids: Collection[int]) -> set[int]:
    """Update the matches of these package versions and publish MatchesChanged; return the ids of those that changed."""
    changed = matching.match_packages(package_ids)
    _publish(changed)
    return changed


@transaction.atomic
def match_advisories(advisory_ids: Collection[int]) -> set[int]:
    """Update the matches of these advisories and publish MatchesChanged; return the ids of changed package versions."""
    since = matching.begin()
    changed = matching.match_advisories(advisory_ids)
    _publish(changed, since)
    return changed
