"""Match bench: matching a feed with all packages, finding the affected images, and counting their findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.db.models import Count
from django.db.models.functions import Now

from accounts.queries import system_user
from lifecycle.advisories import services
from lifecycle.advisories.models import Match
from lifecycle.bench import loading
from lifecycle.bench.measuring import percentile, repeated_ms, repeats_for, seconds_of
from lifecycle.bench.types import Figure, Figures
from lifecycle.evidence import risk
from lifecycle.sbom.models import InventoryPackage

_COMMON_TARGET_MS: Final = 300.0
_RARE_TARGET_MS: Final = 5.0
_REMATCH_TARGET_S: Final = 60.0


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load the data, synchronise the project's feed, measure queries, then match and count everything again."""
    dock = loading.load(images, note=note)
    note("synchronising a feed")
    sync_s = seconds_of(lambda: services.sync_feed(str(loading.DEMO_ADVISORIES), feed_name="demo", actor=system_user()))
    loading.as_owner("VACUUM ANALYZE")
    note("running queries")
    repeats = repeats_for(images)
    counts = InventoryPackage.objects.values("package").annotate(count=Count("id"))
    common = max((risk.images_with_packages([row["package"]]) for row in counts.order_by("-count")[:5]), key=len)
    package_id = _package_in(common)
    rare_id = counts.order_by("count", "package")[0]["package"]
    common_ms = repeated_ms(lambda: risk.images_with_packages([package_id]), repeats=repeats)
    rare_ms = repeated_ms(lambda: risk.images_with_packages([rare_id]), repeats=repeats)
    note("matching a new advisory with a common package")
    advisory_id, affected = _widest_advisory()
    Match.objects.filter(advisory=advisory_id, valid_to=None).update(valid_to=Now())
    new_s = seconds_of(lambda: services.match_advisories([advisory_id]))
    note("matching and counting everything again")
    rematch_s = seconds_of(lambda: services.match_packages(dock.package_ids))
    recount_s = seconds_of(lambda: risk.refresh_risk(dock.image_ids))
    return {
        "sync_feed": Figure(sync_s, "s"),
        "live_matches": Figure(Match.objects.filter(valid_to=None).count(), "matches"),
        "images_with_a_common_package": Figure(len(common), "images"),
        "images_with_a_common_package_p50": Figure(percentile(common_ms, 0.5), "ms", _COMMON_TARGET_MS),
        "images_with_a_rare_package_p50": Figure(percentile(rare_ms, 0.5), "ms", _RARE_TARGET_MS),
        "new_advisory_affects": Figure(affected, "images"),
        "new_advisory_to_every_image_counted": Figure(new_s, "s"),
        "match_all_packages_again": Figure(rematch_s, "s", _REMATCH_TARGET_S),
        "count_all_images_again": Figure(recount_s, "s"),
        "count_rate": Figure(images / recount_s, "images/s"),
    }


def _package_in(image_ids: list[int]) -> int:
    """Return the package version that most of these images contain."""
    rows = InventoryPackage.objects.filter(inventory__image_inventories__image__in=image_ids[:500]).values("package")
    first: int = rows.annotate(count=Count("id")).order_by("-count", "package")[0]["package"]
    return first


def _widest_advisory() -> tuple[int, int]:
    """Return (advisory id, number of affected images) of the advisory whose packages are in the most inventories."""
    rows = Match.objects.filter(valid_to=None).values("advisory").annotate(count=Count("package__inventory_packages"))
    advisory_id: int = rows.order_by("-count", "advisory")[0]["advisory"]
    packages = Match.objects.filter(advisory=advisory_id, valid_to=None).values_list("package", flat=True)
    return advisory_id, len(risk.images_with_packages(list(packages)))
