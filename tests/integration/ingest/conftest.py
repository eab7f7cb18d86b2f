"""A managed registry in memory."""

from __future__ import annotations

import pytest

from tests.factories import dock
from tests.fakes.registry import InMemoryRegistry, answer_with


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> InMemoryRegistry:
    """The managed registry, in memory. Team shop and its owner anna exist."""
    registry = InMemoryRegistry()
    answer_with(registry, monkeypatch)
    dock.user("anna", "owner", of=dock.team("shop"))
    return registry
