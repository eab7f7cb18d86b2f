"""The harbour, and a browser on it. A module that needs other rows has its own `harbour`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.chromium import ARGUMENTS, CHROMIUM
from tests.factories import dock


@pytest.fixture
def harbour(transactional_db: None) -> dict[str, Any]:
    return dock.harbour()


@pytest.fixture
def browser(harbour: dict[str, Any], live_server: Any) -> Iterator[Browser]:
    """A browser; rows are made before it starts, since its event loop keeps Django from the database."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()
