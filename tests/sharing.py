"""Rows that all tests of a file share. To make them for each of hundreds of tests takes longer than the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.test import override_settings

_QUICK = {
    "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "STORAGES": {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
}


@contextmanager
def database(blocker: Any) -> Iterator[None]:
    """Open the database for the fixture of a module (`django_db_setup`, `django_db_blocker`); no row stays."""
    with blocker.unblock(), _atomic():
        yield
        transaction.set_rollback(True)


def quick_settings() -> override_settings:
    """Return the settings that each test has, for rows made before the first one."""
    return override_settings(**_QUICK)


@contextmanager
def taken_back() -> Iterator[None]:
    """Take back what one test does to the shared rows. Copy the objects, which a test may change too."""
    with _atomic():
        yield
        transaction.set_rollback(True)


def _atomic() -> transaction.Atomic:
    """Return a transaction that counts as a test's, in which code may do what it does outside of one."""
    block = transaction.atomic()
    block._from_testcase = True  # type: ignore[attr-defined]  # Django's TestCase sets it too
    return block
