"""`manage.py bench`: the JSON it prints, and the cleanup after success, interruption and kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import redis

from config.embedded import postgres
from lifecycle.bench import scratch
from lifecycle.bench.running import BUILT, NAMES
from lifecycle.bench.scratch import PREFIX
from tests.services import ROOT, Services

# Figures that each bench must report at least.
SLOW: Final = frozenset({"api", "ingest", "promote"})  # half a minute each
FIGURES = {
    "ingest": {"import_rate", "push_to_rows_p50", "push_to_rows_p95", "push_burst_rate", "crawl_rate"},
    "admission": {"reviews_per_s_core", "times_a_django_view", "p99_ms_at_1000", "p99_ms_during_swap", "errors"},
    "token": {"tokens_per_s_core", "token_p99_at_500", "plain_drf_per_s_core", "from_database_per_s_core"},
    "audit": {"append_p95", "appended_per_s", "sealing_lag_p95", "closed_loop_to_without_queue"},
    "match": {"images_with_a_common_package_p50", "new_advisory_to_every_image_counted", "match_all_packages_again"},
    "rescan": {"advisory_to_findings_counts_alerts_p50", "advisory_alerts", "sync_of_500_changed_records"},
    "promote": {"approval_to_tag_p95", "keyless_bundle_p95", "verdict_of_20_rules_p95", "what_if"},
    "runtime": {
        "report_10k_pods_s",
        "report_unchanged_s",
        "report_answer_ms",
        "agent_rss_mb",
        "advisory_to_alert_s",
        "falco_events_per_s",
    },
    "lineage": {"derive_all", "descendants_count_p50", "descendants_page_of_50_p50", "neighbourhood_page_p95"},
    "api": {
        "api_images_first_p95",
        "api_images_deep_p95",
        "api_audit_events_deep_p95",
        "page_lineage_roots_p50",
        "api_images_first_to_its_sql",
        "page_inbox_to_its_sql",
    },
}


def without_settings() -> dict[str, str]:
    """Return the environment for `manage.py`, which chooses the settings of each command itself."""
    return {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}


@pytest.fixture(scope="module")
def migrated(services: Services) -> Iterator[str]:
    """The name of a migrated database for benches to copy."""
    services.need_postgres()
    name = "migrated_for_benches"
    services.cluster.make_database(name)
    urls = {
        "DATABASE_URL": services.cluster.url(postgres.APP, name),
        "DATABASE_OWNER_URL": services.cluster.url(postgres.OWNER, name),
    }
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(migrate, cwd=ROOT, env=without_settings() | urls, check=True, capture_output=True)
    yield name
    services.drop_database(name)


@pytest.fixture
def servers(services: Services, migrated: str, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("BENCH_TEMPLATE", migrated)
    services.need_redis()
    services.forget_wake_ups()
    return services


def bench(*words: str) -> subprocess.Popen[str]:
    # A shell ignores SIGINT for background jobs, and child processes inherit that. Restore the default.
    with_sigint = ("env", "--default-signal=INT")
    return subprocess.Popen(
        [*with_sigint, sys.executable, "manage.py", "bench", *words],
        cwd=ROOT,
        env=without_settings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def folders() -> set[str]:
    """Return the names of the folders of all benches on this machine."""
    return {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}{scratch._here()}*")}


@pytest.mark.usefixtures("servers")
def test_remains_of_another_installation_stay():
    own, other = (
        Path(tempfile.mkdtemp(prefix=f"{PREFIX}{mark}")) for mark in (scratch._here(), "00000000_")
    )  # its locks are in another PostgreSQL
    try:
        with scratch._locks() as locks:
            scratch._remove_left_over(locks)
        assert (own.exists(), other.exists()) == (False, True)
    finally:
        other.rmdir()


def left_over(services: Services, before: set[str]) -> tuple[list[str], list[int], set[str]]:
    """Return what is left: databases, numbers of non-empty Redis databases, and new folders."""
    link = services.cluster.connect(postgres.OWNER, postgres.DATABASE)
    with link.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
        databases = [name for (name,) in cursor.fetchall()]
    link.close()
    numbers = []
    for number in range(1, 16):
        client = redis.Redis.from_url(services.redis.url(number))
        if client.dbsize():
            numbers.append(number)
        client.close()
    return databases, numbers, folders() - before


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in SLOW else ()) for name in BUILT])
def test_bench_prints_its_figures_and_cleans_up(servers: Services, name: str, tmp_path: Path) -> None:
    saved = tmp_path / "deep" / "figures.json"
    before = folders()
    process = bench(name, "--images", "100", "--json", "--save", str(saved))
    out, error = process.communicate(timeout=280)
    assert process.returncode == 0, error
    report = json.loads(out)
    assert set(report) == {"bench", "images", "figures", "peak_rss_mb", "seconds"}
    assert (report["bench"], report["images"]) == (name, 100)
    assert set(report["figures"]) >= FIGURES[name]
    for title, figure in report["figures"].items():
        assert set(figure) == {"value", "unit", "target"}, title
        is_count = figure["unit"] == "errors"  # none is best
        assert figure["value"] > 0 or is_count, title
        assert figure["target"] is None or figure["target"] > 0 or is_count, title
    assert 0 < report["peak_rss_mb"] < 2000
    assert json.loads(saved.read_text()) == report
    assert left_over(servers, before) == ([], [], set())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_bench_cleans_up(servers: Services, number: int) -> None:
    before = folders()
    process = bench("lineage", "--images", "3000")
    assert process.stderr is not None
    assert "loading" in process.stderr.readline()  # the bench is running
    assert [len(items) for items in left_over(servers, before)[:2]] == [1, 1]
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert left_over(servers, before) == ([], [], set())


def test_next_bench_cleans_up_after_a_killed_one(servers: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_TEMPLATE")  # here a bench migrates its database itself, as for users
    before = folders()
    process = bench("lineage", "--images", "3000")
    assert process.stderr is not None
    assert "loading" in process.stderr.readline()
    process.kill()
    process.communicate(timeout=60)
    assert [len(items) for items in left_over(servers, before)] == [1, 1, 1]
    second = bench("lineage", "--images", "50", "--json")
    _, error = second.communicate(timeout=120)
    assert second.returncode == 0, error
    assert left_over(servers, before) == ([], [], set())


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(BUILT)))
def test_unbuilt_bench_exits_2_and_explains(servers: Services, name: str) -> None:
    process = bench(name, "--json")
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "not built" in error


@pytest.mark.parametrize("words", [("unheard-of",), ("lineage", "--images", "0"), ("lineage", "--images", "many")])
def test_bad_arguments_exit_2_with_an_error(servers: Services, words: tuple[str, ...]) -> None:
    process = bench(*words)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error" in error


def test_unreachable_server_exits_1_with_an_error(servers: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_OWNER_URL", "postgres://nobody:x@127.0.0.1:1/nothing")
    started = time.monotonic()
    process = bench("lineage", "--images", "10")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "PostgreSQL does not respond" in error
    assert time.monotonic() - started < 30


def test_template_that_is_missing_exits_1_and_says_so(servers: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folders()
    monkeypatch.setenv("BENCH_TEMPLATE", "nowhere")
    process = bench("lineage", "--images", "10")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "BENCH_TEMPLATE names a database that cannot be copied" in error
    assert left_over(servers, before) == ([], [], set())
