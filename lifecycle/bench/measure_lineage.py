"""Lineage bench: the lineage page, the images built on the biggest base, and computing all derivations."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection, transaction
from django.db.models import Count

from accounts.models import User
from lifecycle.bench import loading
from lifecycle.bench.measuring import percentile, repeated_ms, repeats_for, seconds_of, timings_ms
from lifecycle.bench.types import Figure, Figures
from lifecycle.core.paging import keyset_page
from lifecycle.lineage import services
from lifecycle.lineage.models import Ancestry
from lifecycle.lineage.queries import ancestors_of, descendant_count, descendants_page
from lifecycle.pages.lineage.page_queries import neighbourhood_of, roots_visible
from lifecycle.registry.models import Image

SAMPLES = 60  # images whose lineage page is measured, spread over the data set
_PAGE_TARGET_MS = 1.0
_COUNT_TARGET_MS = 15.0


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load the data, compute the derivations, then measure the queries."""
    dock = loading.load(images, note=note)
    note("deriving")
    derive_s = seconds_of(lambda: services.derive(dock.image_ids))
    loading.as_owner("ANALYZE")
    note("rebuilding the closure table")
    closure_s = seconds_of(services.rebuild_closure)
    loading.as_owner("VACUUM ANALYZE")
    hub_id, descendants = _biggest_base()
    hub = Image.objects.get(pk=hub_id)
    leaf = Image.objects.get(pk=dock.image_ids[-1])
    note("reading")
    repeats = repeats_for(images)
    count_ms = repeated_ms(lambda: descendant_count(hub), repeats=repeats)
    first_ms = repeated_ms(lambda: descendants_page(hub), repeats=repeats)
    middle = descendants_page(hub, limit=max(descendants // 2, 1))[-1]
    deep_ms = repeated_ms(lambda: descendants_page(hub, after=(middle.depth, middle.descendant_id)), repeats=repeats)
    up_ms = repeated_ms(lambda: list(ancestors_of(leaf)), repeats=repeats)
    reader = User.objects.get(username="wide")
    hub_page_ms = repeated_ms(lambda: neighbourhood_of(hub, reader), repeats=repeats)
    sample = Image.objects.in_bulk(dock.image_ids[:: max(len(dock.image_ids) // SAMPLES, 1)])
    page_ms = timings_ms([lambda image=image: neighbourhood_of(image, reader) for image in sample.values()])  # type: ignore[misc]  # mypy infers no type for it  # mypy infers no type for a lambda with a default
    roots_ms = repeated_ms(lambda: keyset_page(roots_visible(reader), ("-id",)), repeats=repeats)
    return {
        "derive_all": Figure(derive_s, "s"),
        "derive_rate": Figure(images / derive_s, "images/s"),
        "rebuild_closure": Figure(closure_s, "s"),
        "closure_rows": Figure(Ancestry.objects.count(), "rows"),
        "derive_one_new_image_p50": Figure(percentile(_derive_one(dock), 0.5), "ms"),
        "biggest_base_descendants": Figure(descendants, "images"),
        "descendants_count_p50": Figure(percentile(count_ms, 0.5), "ms", _COUNT_TARGET_MS),
        "descendants_count_p95": Figure(percentile(count_ms, 0.95), "ms"),
        "descendants_page_of_50_p50": Figure(percentile(first_ms, 0.5), "ms", _PAGE_TARGET_MS),
        "descendants_page_of_50_p95": Figure(percentile(first_ms, 0.95), "ms"),
        "descendants_page_of_50_in_the_middle_p50": Figure(percentile(deep_ms, 0.5), "ms", _PAGE_TARGET_MS),
        "ancestors_p50": Figure(percentile(up_ms, 0.5), "ms", _PAGE_TARGET_MS),
        "neighbourhood_page_p50": Figure(percentile(page_ms, 0.5), "ms"),
        "neighbourhood_page_p95": Figure(percentile(page_ms, 0.95), "ms"),
        "neighbourhood_page_of_the_biggest_base_p50": Figure(percentile(hub_page_ms, 0.5), "ms"),
        "neighbourhood_page_of_the_biggest_base_p95": Figure(percentile(hub_page_ms, 0.95), "ms"),
        "roots_page_p50": Figure(percentile(roots_ms, 0.5), "ms"),
    }


def _biggest_base() -> tuple[int, int]:
    """Return (image id, number of images built on it) of the biggest base."""
    rows = Ancestry.objects.values("ancestor").annotate(count=Count("id")).order_by("-count")
    first = rows[0]
    return first["ancestor"], first["count"]


def _derive_one(dock: loading.Dock) -> list[float]:
    """Return the times in milliseconds to derive single images without any stored lineage."""

    def derive(image_id: int) -> None:
        with transaction.atomic():
            services.derive([image_id])

    ids = dock.image_ids[-20:]
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM lifecycle_ancestry WHERE descendant_id = ANY(%s)", [ids])
        cursor.execute("DELETE FROM lifecycle_derivation WHERE derived_id = ANY(%s)", [ids])
    return timings_ms([lambda image_id=image_id: derive(image_id) for image_id in ids])  # type: ignore[misc]  # mypy infers no type for it
