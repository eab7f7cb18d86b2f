"""A new environment can promote to another registry from the start. Only an admin chooses it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import Role, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.core.errors import Malformed, NotPermitted
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Registry
from tests.clients import Caller

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def other(dock: Any) -> Registry:
    Registry.objects.create(name="named", endpoint="https://named.example.com")  # only an inventory names it
    return Registry.objects.create(name="edge", endpoint="https://edge.example.com", is_added=True)


@pytest.fixture
def admin(dock: Any) -> User:
    """An admin who also owns the team."""
    user = User.objects.create_superuser("root")
    RoleGrant.objects.create(user=user, team=dock.team, role=Role.objects.get(slug="owner"))
    return user


def made(slug: str) -> Environment:
    return Environment.objects.select_related("registry").get(slug=slug)


def test_admin_creates_an_environment_in_another_registry(dock: Any, other: Registry, admin: User) -> None:
    values = {"slug": "edge", "name": "Edge", "prefix": "edge"}
    with pytest.raises(NotPermitted, match="Only admins"):
        create_environment(dock.team, actor=dock.owner, registry="edge", **values)
    for name in ("nowhere", "named"):
        with pytest.raises(Malformed, match="There is no registry"):
            create_environment(dock.team, actor=admin, registry=name, **values)
    assert create_environment(dock.team, actor=admin, registry="edge", **values).registry == other
    assert AuditEvent.objects.filter(action="environment.created").latest("pk").details["registry"] == "edge"
    plain = create_environment(dock.team, actor=dock.owner, registry="managed", slug="b", name="b", prefix="b")
    assert plain.registry is None
    assert AuditEvent.objects.filter(action="environment.created").latest("pk").details["registry"] == "managed"


def test_api_takes_a_registry(dock: Any, other: Registry, admin: User) -> None:
    body = {"slug": "edge", "prefix": "edge", "registry": "edge"}
    assert Caller(dock.owner).post("teams/shop/environments/", body).status_code == 403
    assert Caller(admin).post("teams/shop/environments/", body | {"registry": "nowhere"}).status_code == 400
    assert Caller(admin).post("teams/shop/environments/", body).status_code == 201
    assert made("edge").registry == other
    assert Caller(dock.owner).post("teams/shop/environments/", {"slug": "b", "prefix": "b"}).status_code == 201
    assert made("b").registry is None


def test_form_offers_registries_to_admins_only(dock: Any, other: Registry, admin: User) -> None:
    client, owner = Client(), Client()
    client.force_login(admin, backend=BACKEND)
    owner.force_login(dock.owner, backend=BACKEND)
    page = "/teams/shop/?tab=environments"
    assert '<option value="edge">edge</option>' in client.get(page).content.decode()
    assert 'name="registry"' not in owner.get(page).content.decode()
    sent = {"slug": "edge", "target_prefix": "edge", "required_approvals": "1", "registry": "edge"}
    assert client.post("/teams/shop/environments/", sent).status_code == 302
    assert made("edge").registry == other
    forged = sent | {"slug": "b", "target_prefix": "b"}
    assert owner.post("/teams/shop/environments/", forged).status_code == 302
    assert made("b").registry is None  # the field is not in the form of an owner
