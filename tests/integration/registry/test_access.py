"""Finding rows by id or digest: hidden and missing rows give the same answer."""

from __future__ import annotations

import pytest

from accounts.verbs import Verb
from lifecycle.authority import access
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.registry.models import RepositoryImage
from tests.factories import dock

pytestmark = pytest.mark.django_db


def test_image_is_found_only_through_a_visible_repository() -> None:
    item, repository = dock.image("one"), dock.repository("shop/api")
    dock.push(repository, item, "1")
    viewer, stranger = (
        dock.user("vera", "viewer", of=dock.team("shop")),
        dock.user("eve", "owner", of=dock.team("base")),
    )
    assert access.image_for(viewer, item.digest) == item
    assert access.repository_for(viewer, repository.pk) == repository
    assert access.repository_of(repositories_visible_to(viewer), "shop", "shop/api") == repository
    assert access.image_in(repository, item.digest).image == item
    for digest in (item.digest, dock.sha("absent"), "nonsense"):
        with pytest.raises(NotFound) as hidden:
            access.image_for(stranger, digest)
        assert hidden.value.message == "Image not found, or you don't have access."
    with pytest.raises(NotFound):
        access.repository_for(stranger, repository.pk)
    with pytest.raises(NotPermitted):
        access.repository_for(viewer, repository.pk, Verb.IMAGE_REBUILD)
    RepositoryImage.objects.update(removed_at="2026-01-01T00:00Z")
    with pytest.raises(NotFound):
        access.image_for(viewer, item.digest)
    with pytest.raises(NotFound):
        access.image_in(repository, item.digest)
    with pytest.raises(NotFound):
        access.repository_of(repositories_visible_to(stranger), "shop", "shop/api")
