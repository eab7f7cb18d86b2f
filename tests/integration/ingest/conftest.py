"""A managed registry in memory."""

from __future__ import annotations

import pytest

from lifecycle.ingest import services as ingest
from tests.factories import dock
from tests.fakes.registry import InMemoryRegistry


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> InMemoryRegistry:
    """The managed registry, in memory; team shop and its owner exist."""
    registry = InMemoryRegistry()
    monkeypatch.setattr(ingest, "client_for", lambda row: registry)
    dock.user("anna", "owner", of=dock.team("shop"))
    return registry
