"""Users with tokens, and a real registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from accounts import tokens
from accounts.models import ApiToken, Team
from lifecycle.core.http import HttpClient
from lifecycle.oci.authorization import SelfIssued
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.http_client import HttpRegistryClient
from tests.factories import dock
from tests.factories.people import Person
from tests.services import Services


@pytest.fixture
def person(db: None) -> Callable[..., Person]:
    """Create a user with built-in roles over a team, and a token."""

    def make(name: str, *roles: str, of: Team | None = None) -> Person:
        user = dock.user(name, *roles, of=of)
        _row, text = tokens.create_token(user, kind=ApiToken.Kind.PERSONAL, name="test")
        return Person(user, text)

    return make


@pytest.fixture
def real_client(services: Services) -> Iterator[RegistryClient]:
    """Our client of a real Distribution. It signs its own tokens."""
    services.need_registry()
    http = HttpClient()
    yield HttpRegistryClient(services.registry.url, http=http, authorizer=SelfIssued())
    http.close()
