"""Ingest bench: the import of an inventory file, and pushes through the real registry, web process and workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from django.conf import settings

from accounts.queries import system_user
from lifecycle.bench import files
from lifecycle.bench.dataset import planned_images
from lifecycle.bench.measuring import TRIAL, percentile, seconds_of
from lifecycle.bench.processes import Processes
from lifecycle.bench.pushing import await_rows, pusher, registry_client
from lifecycle.bench.types import Figure, Figures
from lifecycle.ingest import services as ingest
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.sbom.inventories import import_inventories
from lifecycle.sbom.models import PackageVersion

VISIBLE_TARGET_MS: Final = 2000.0  # requirement: a push is visible within 2 s after its manifest
SBOMS_TARGET: Final = 300.0  # images/s
_PUSHES: Final = 40  # one by one, to measure the latency
_BURST: Final = 200  # from four clients at once, to measure the rate
_CLIENTS: Final = 4


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Import an inventory of all images, then push small images to an installation of that size."""
    path = Path(settings.HOME) / "inventory.jsonl.gz"
    note(f"writing an inventory of {images} images")
    files.write_inventories(planned_images(images), path)
    note("importing it")
    import_s = seconds_of(lambda: import_inventories(path, team_slug="imported", actor=system_user()))
    packages = PackageVersion.objects.count()
    token = pusher()
    pushes, burst = (_PUSHES, _BURST) if images >= TRIAL else (3, 8)
    with Processes() as processes:
        note("starting web, registry and workers")
        processes.web()
        processes.registry()
        processes.workers()
        note("pushing")
        ensure_managed_registry()
        latencies = _push_one_by_one(token, pushes)
        burst_s = _push_at_once(token, burst)
        note("crawling images without notifications")
        processes.stop("worker")
        crawl_s = _crawl(token, burst)
    return {
        "import_rate": Figure(images / import_s, "images/s", SBOMS_TARGET),
        "import_package_versions": Figure(packages, "package versions"),
        "push_to_rows_p50": Figure(percentile(latencies, 0.5), "ms", VISIBLE_TARGET_MS),
        "push_to_rows_p95": Figure(percentile(latencies, 0.95), "ms", VISIBLE_TARGET_MS),
        "push_burst_rate": Figure(burst / burst_s, "images/s"),
        "crawl_rate": Figure(burst / crawl_s, "images/s"),
    }


def _push_one_by_one(token: str, count: int) -> list[float]:
    """Return the milliseconds from the push of each manifest until its tag is in the database."""
    latencies = []
    with registry_client(token) as client:
        for number in range(-2, count):  # two to warm up
            image = files.small_image(f"one {number}")
            files.push_blobs(client, "bench/one", image)
            started = time.perf_counter()
            files.push_manifest(client, "bench/one", image, f"1.{number + 2}")
            await_rows("bench/one", {image.digest})
            if number >= 0:
                latencies.append(1000 * (time.perf_counter() - started))
    return latencies


def _push_at_once(token: str, count: int) -> float:
    """Return the seconds from the first of many parallel pushes until all their rows are stored."""
    started = time.perf_counter()
    digests = _push_many(token, "burst", count)
    for name, pushed in digests.items():
        await_rows(name, pushed)
    return time.perf_counter() - started


def _crawl(token: str, count: int) -> float:
    """Push images while no worker runs, and return the seconds that one crawl needs to find them."""
    digests = _push_many(token, "crawl", count)
    crawl_s = seconds_of(partial(ingest.crawl, ensure_managed_registry().pk))
    for name, pushed in digests.items():
        await_rows(name, pushed)
    return crawl_s


def _push_many(token: str, text: str, count: int) -> dict[str, set[str]]:
    """Push `count` images from several clients at once; return the digests by repository."""

    def push(part: int) -> tuple[str, set[str]]:
        name, pushed = f"bench/{text}-{part}", set()
        with registry_client(token) as client:
            for number in range(part, count, _CLIENTS):
                image = files.small_image(f"{text} {number}")
                files.push_blobs(client, name, image)
                files.push_manifest(client, name, image, f"1.{number}")
                pushed.add(image.digest)
        return name, pushed

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return dict(pool.map(push, range(_CLIENTS)))
