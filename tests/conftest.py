"""Fixtures for every test. A test in `unit/` has no socket; the others get real servers."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
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
    from django.test import TestCase, TransactionTestCase

    def empty(self: TransactionTestCase) -> None:
        try:
            SERVICES.end_writers()
        finally:
            SERVICES.empty_database()

    roll_back = TestCase._fixture_teardown  # type: ignore[attr-defined]  # the stubs leave out private methods

    def check(self: TestCase) -> None:
        """Nothing of a test that rolls back may stay: the test that let something commit fails, and not a later one."""
        roll_back(self)
        if left := SERVICES.rows_left():
            SERVICES.empty_database()
            raise RuntimeError(f"Something committed rows while this test ran, which would reach later tests: {left}")

    # Django would TRUNCATE as the application role, which the audit trail refuses, as it must.
    TransactionTestCase._fixture_teardown = empty  # type: ignore[method-assign]  # replaced on purpose
    TestCase._fixture_teardown = check  # type: ignore[method-assign]  # replaced on purpose


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Long bytes name no test: packed ones contain a time, and processes that disagree about names stop the run."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None


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
    monkeypatch.setattr("lifecycle.jobs.services._broker.away_until", 0.0)  # an earlier test may have had no Redis
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
def live_stack(services: Services, transactional_db: None) -> Services:
    """Everything as production runs it: registry, web, workers, ticker, over PostgreSQL and Redis.

    The registry and Redis are empty. `transactional_db` ends all that writes by itself, before it empties the
    database: what a registry still had to tell, or a worker still had to do, must not reach the next test.
    """
    services.end_writers()
    services.need_redis()
    services.forget_wake_ups()
    shutil.rmtree(services.registry.folder / "data", ignore_errors=True)
    services.need_registry()
    services.need_workers()
    return services
