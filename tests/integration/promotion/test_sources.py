"""Where promotions read and write: only the managed registry is a source, and what was voted on names the target."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client

from accounts.models import Role, Team, User
from accounts.verbs import Verb
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import differs, project
from lifecycle.authority.rights import may
from lifecycle.authority.services import registries
from lifecycle.core.errors import Conflict, Malformed
from lifecycle.promotion import services
from lifecycle.promotion.breakglass import why_not_break_glass
from lifecycle.promotion.environments import change_environment
from lifecycle.promotion.queries import target_registry
from lifecycle.promotion.refusals import why_not_request
from lifecycle.promotion.release_sets import Wanted, request_set
from lifecycle.promotion.rollback import why_not_roll_back
from lifecycle.registry.models import Registry, Repository, RepositoryImage
from lifecycle.registry.services import ensure_repository
from tests.factories.people import person

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("root")


@pytest.fixture
def adopted(dock: Any, admin: User) -> SimpleNamespace:
    """A repository that an inventory named, in a registry that an admin added with our account."""
    row = Registry.objects.create(name="quay-io", endpoint="https://quay.io")
    repository = Repository.objects.create(registry=row, team=dock.team, name="shop/web", family="shop/web")
    RepositoryImage.objects.create(repository=repository, image=dock.image)
    harbor = registries.add_registry(actor=admin, name="harbor", endpoint="quay.io", username="site", password="word")
    repository.refresh_from_db()
    return SimpleNamespace(registry=harbor, repository=repository)


def test_nothing_is_promoted_from_a_registry_that_only_an_inventory_named(dock: Any, adopted: SimpleNamespace) -> None:
    role = Role.objects.create(slug="breaker", name="Breaker", verbs=["image.view", "promotion.breakglass"])
    RoleGrant.objects.create(user=dock.owner, team=dock.team, role=role)
    for why_not in (why_not_request, why_not_break_glass, why_not_roll_back):
        refused = why_not(dock.owner, adopted.repository, dock.dev)
        assert refused is not None
        assert "shop/web is in the registry harbor." in refused.text
        assert why_not(dock.owner, dock.repository, dock.dev) is None
    wanted = [Wanted(row, dock.image.digest) for row in (dock.repository, adopted.repository)]
    with pytest.raises(Malformed, match="in the registry harbor"):
        request_set(wanted, dock.dev, actor=dock.owner, reason="release")
    with pytest.raises(Malformed, match="in the registry harbor"):
        services.request_promotion(adopted.repository, dock.image.digest, dock.dev, actor=dock.owner, reason="release")
    client = Client()
    client.force_login(dock.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = f"/promotions/break-glass/?repository={adopted.repository.pk}&digest={dock.image.digest}"
    assert "in the registry harbor" in client.get(where).content.decode()
    # A request that was made before would go to the managed registry, not to the site's account elsewhere.
    assert target_registry(dock.dev, adopted.repository) == dock.repository.registry
    dock.dev.registry = adopted.registry
    assert target_registry(dock.dev, dock.repository) == adopted.registry


def test_a_row_of_an_inventory_becomes_the_target_that_its_name_says(dock: Any, adopted: SimpleNamespace) -> None:
    other = Team.objects.create(slug="imported", name="Imported")
    stranger = person("stranger")
    names = ("dev/shop/api", "staging/shop/api")
    for name in names:
        Repository.objects.create(registry=adopted.registry, team=other, name=name, family=name)
    role = Role.objects.get(slug="creator")
    for user, team, pattern in ((stranger, other, "dev/*"), (dock.requester, dock.team, "shop/*")):
        RoleGrant.objects.filter(user=user).delete()
        RoleGrant.objects.create(user=user, team=team, role=role, repository_pattern=pattern)
        project(user)
    dock.dev.registry = adopted.registry
    dock.dev.save()
    target, stays = (ensure_repository(adopted.registry, name) for name in names)
    assert Repository.objects.count() == 4  # no second row
    target.refresh_from_db()
    assert (target.environment, target.source, target.team) == (dock.dev, dock.repository, dock.team)
    assert target.family == "shop/api"
    assert (stays.environment, stays.team) == (None, other)  # staging is in the managed registry
    for user, sees in ((stranger, False), (dock.requester, True)):  # and guardian agrees
        assert may(user, Verb.IMAGE_VIEW, repository=target).is_allowed is sees
        assert not differs(user)
    dock.dev.registry = None
    dock.dev.save()
    with pytest.raises(Conflict, match="filled 1 of its repositories"):
        registries.remove_registry(adopted.registry.pk, actor=User.objects.get(username="root"))


def test_what_was_voted_on_stays_at_its_address(dock: Any, admin: User) -> None:
    harbor = registries.add_registry(actor=admin, name="harbor", endpoint="harbor.example.com")
    change_environment(dock.dev.pk, actor=admin, registry="harbor")
    request = services.request_promotion(
        dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="release"
    )
    request.refresh_from_db()
    assert request.state == "ready"  # not yet moving
    for act in (
        lambda: change_environment(dock.dev.pk, actor=admin, registry="managed"),
        lambda: registries.change_registry(harbor.pk, actor=admin, endpoint="evil.example.com"),
    ):
        with pytest.raises(Conflict, match=f"{request} is not finished"):
            act()
    registries.change_registry(harbor.pk, actor=admin, name="zot")
    services.withdraw(request.pk, actor=dock.requester)
    registries.change_registry(harbor.pk, actor=admin, endpoint="zot.example.com")
    assert change_environment(dock.dev.pk, actor=admin, registry="managed").registry is None
