"""Fixtures for every test. A test in `unit/` has no socket; the others get real servers."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_socket

from tests.plugin import SERVICES
from tests.services import Services


@pytest.fixture(scope="session")
def services() -> Services:
    """The servers of this run; ask it for what you need (`services.need_registry()`)."""
    return SERVICES


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: Any) -> None:
    """In place of pytest-django's: the database is migrated by the owner role, and used by the application role."""
    SERVICES.need_postgres()
    from django.test import TransactionTestCase

    def teardown(self: TransactionTestCase) -> None:
        SERVICES.empty_database()

    # Django would TRUNCATE as the application role, which the audit trail refuses, as it must.
    TransactionTestCase._fixture_teardown = teardown  # type: ignore[method-assign]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "/unit/" in item.path.as_posix() and not item.get_closest_marker("django_db"):
        pytest_socket.disable_socket(allow_unix_socket=True)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def _no_cache_between_tests(settings: Any, request: pytest.FixtureRequest) -> None:
    """Tests that do not run Redis keep their cache in memory, and empty."""
    if "services" not in request.fixturenames and "live_stack" not in request.fixturenames:
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def wake_ups(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[tuple[int, str]]:
    """Without workers no wake-up is sent: they are listed instead, and a test runs the jobs by hand."""
    sent: list[tuple[int, str]] = []
    if "live_stack" not in request.fixturenames and "services" not in request.fixturenames:
        monkeypatch.setattr("lifecycle.jobs.services.wake", lambda job_id, queue: sent.append((job_id, queue)))
    return sent


@pytest.fixture
def in_other_connection() -> Callable[[Callable[[], Any]], Any]:
    """Run a function in a thread with a database connection of its own, which waits 200 ms for a lock."""

    def run(function: Callable[[], Any]) -> Any:
        outcome: list[Any] = [None, None]

        def body() -> None:
            from django.db import connection

            try:
                with connection.cursor() as cursor:
                    cursor.execute("SET lock_timeout = '200ms'")
                outcome[0] = function()
            except BaseException as error:  # noqa: BLE001 -- raised again in the test's own thread
                outcome[1] = error
            finally:
                connection.close()

        thread = threading.Thread(target=body)
        thread.start()
        thread.join(timeout=20)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    return run


@pytest.fixture
def live_stack(services: Services, transactional_db: None, settings: Any) -> Iterator[Services]:
    """Everything as production runs it: registry, web, workers, ticker, over PostgreSQL and Redis.

    The registry is empty, and everything that writes by itself ends with the test: what a registry still had to tell,
    or a worker still had to do, must not reach the next test's database.
    """
    writers = ("registry", "ticker", "worker", "builder", "web")
    for name in writers:
        services.kill(name)
    shutil.rmtree(services.registry.folder / "data", ignore_errors=True)
    from lifecycle.jobs.models import ScheduleSlot

    # This period's crawl counts as done: one that beats a push's notification records it without its actor.
    ScheduleSlot.objects.create(schedule="crawl", slot=int(time.time() // settings.CRAWL_EVERY_S))
    services.need_workers()
    services.need_registry()
    yield services
    for name in writers:
        services.kill(name)
    services.await_alone()
