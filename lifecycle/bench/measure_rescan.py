"""Rescan bench: a feed into an empty database, a changed feed, and the time from one advisory until teams can be told.

Nothing is scanned again: an advisory is matched with package versions, which images share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import orjson
from django.conf import settings
from django.db import transaction
from django.db.models import Count

from accounts.queries import system_user
from lifecycle.advisories import services
from lifecycle.advisories.models import Advisory, Match
from lifecycle.alerts import passes
from lifecycle.alerts.models import Alert
from lifecycle.bench import loading
from lifecycle.bench.measuring import peak_rss_mb, percentile, repeats_for, seconds_of, timings_ms
from lifecycle.bench.types import Figure, Figures
from lifecycle.core import clock
from lifecycle.evidence import risk
from lifecycle.registry.models import Image
from lifecycle.sbom.models import InventoryPackage, PackageVersion

_LOAD_TARGET_S: Final = 120.0
_LOAD_TARGET_MB: Final = 600.0
_ARRIVAL_TARGET_S: Final = 2.0
_CHANGED_TARGET_S: Final = 5.0
_COMMON_TARGET_MS: Final = 300.0  # at 1,000,000 images
_CHANGED: Final = 500  # records of a feed that change between two synchronisations
_FEED: Final = 2000  # records of that feed
EXPORT: Final = "BENCH_OSV"  # variable: the folder of an OSV export, to load into the empty database


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load a feed into the empty database, then the data, then let advisories arrive and change."""
    figures: dict[str, Figure] = {}
    if export := os.environ.get(EXPORT):
        note(f"loading the feed {export}")
        load_s = seconds_of(lambda: services.sync_feed(export, feed_name="export", actor=system_user()))
        figures["load_records"] = Figure(Advisory.objects.count(), "records")
        figures["load_into_empty_database"] = Figure(load_s, "s", _LOAD_TARGET_S)
        figures["load_peak_memory"] = Figure(peak_rss_mb(), "MB", _LOAD_TARGET_MB)
    dock = loading.load(images, note=note)
    loading.complete(dock, note=note)
    note("counting all images")
    figures["count_all_images"] = Figure(seconds_of(lambda: risk.refresh_risk(dock.image_ids)), "s")
    passes.remember_all(clock.now(), _in_transaction)
    loading.as_owner("VACUUM ANALYZE")
    note("one advisory after the other arrives")
    figures |= _arrivals(repeats_for(images, 5))
    note(f"{_CHANGED} records of a feed change")
    figures |= _changes()
    return figures


def _in_transaction(function: Callable[[], None]) -> None:
    with transaction.atomic():
        function()


@transaction.atomic
def _look() -> None:
    """Find what changed, and write alerts and notices, as the job does."""
    passes.look_now(clock.now())


def _arrivals(count: int) -> Figures:
    """Return the time from a new record until findings, counts and alerts are there, and then of one look-up."""
    folder = Path(settings.HOME) / "arriving"
    seconds, told = [], []
    for number, name in enumerate(_common_packages(count)):
        _write(folder / "PyPI", [_flaw(f"BENCH-{number}", name, modified=number)])
        synced = seconds_of(lambda: services.sync_feed(str(folder), feed_name="arriving", actor=system_user()))
        looked = seconds_of(_look)
        seconds.append(synced + looked)
        told.append(looked)
    packages = Match.objects.filter(advisory__osv_id="BENCH-0", valid_to=None).values_list("package", flat=True)
    affected = risk.images_with_packages(list(packages))
    counted = Image.objects.filter(pk__in=affected, high_count__gt=0).count()
    finding = timings_ms([lambda: risk.images_with_packages(list(packages))] * repeats_for(len(affected)))
    return {
        "advisory_affects": Figure(len(affected), "images"),
        "advisory_images_counted": Figure(counted, "images"),
        "advisory_to_findings_counts_alerts_p50": Figure(percentile(seconds, 0.5), "s", _ARRIVAL_TARGET_S),
        "advisory_alerts_of_that_p50": Figure(percentile(told, 0.5), "s"),
        "advisory_alerts": Figure(Alert.objects.count(), "alerts"),
        "advisory_to_affected_images_p95": Figure(percentile(finding, 0.95), "ms", _COMMON_TARGET_MS),
    }


def _changes() -> Figures:
    """Return the time to synchronise a feed in which some records changed."""
    folder = Path(settings.HOME) / "changing"
    names = list(
        PackageVersion.objects.filter(type="pypi").order_by("name").values_list("name", flat=True).distinct()[:_FEED]
    )
    records = [_flaw(f"FEED-{number}", names[number % len(names)], modified=0) for number in range(_FEED)]
    _write(folder / "PyPI", records)
    services.sync_feed(str(folder), feed_name="changing", actor=system_user())
    changed = [_flaw(f"FEED-{n}", names[n % len(names)], modified=1, fixed="3.0.0") for n in range(_CHANGED)]
    _write(folder / "PyPI", [*changed, *records[_CHANGED:]])
    changed_s = seconds_of(lambda: services.sync_feed(str(folder), feed_name="changing", actor=system_user()))
    looked_s = seconds_of(_look)
    return {
        "sync_of_500_changed_records": Figure(changed_s, "s", _CHANGED_TARGET_S),
        "alerts_of_500_changed_records": Figure(looked_s, "s"),
    }


def _common_packages(count: int) -> list[str]:
    """Return the names of PyPI packages that the most inventories contain."""
    rows = InventoryPackage.objects.filter(package__type="pypi").values("package__name")
    return list(rows.annotate(count=Count("id")).order_by("-count").values_list("package__name", flat=True)[:count])


def _flaw(osv_id: str, name: str, *, modified: int, fixed: str = "999") -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
    return {
        "schema_version": "1.6.0",
        "id": osv_id,
        "modified": f"2026-01-01T00:00:{modified:02}Z",
        "summary": f"A made-up flaw of {name}",
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],
        "affected": [{"package": {"ecosystem": "PyPI", "name": name}, "ranges": ranges}],
    }


def _write(folder: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records into an export; what is there stays, unless it has the same id."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / f"{record['id']}.json").write_bytes(orjson.dumps(record))
