"""Fixtures of several packages: a team with two environments, and the people of a promotion."""

from __future__ import annotations

import pytest

from tests.factories.shop import make_dock, make_request
from tests.fakes.signing_service import Service


@pytest.fixture
def dock(db):
    """shop/api with one scanned image; dev, staging; requester, two approvers, deployer, outsider."""
    return make_dock()


@pytest.fixture
def request_(dock):
    """An open request for staging, of a digest that has been in dev."""
    return make_request(dock)


@pytest.fixture
def service(settings):
    """A service on 127.0.0.1 that answers with signed replies, and that may be called."""
    made = Service()
    settings.OUTBOUND_ALLOW = [made.address]
    yield made
    made.stop()
