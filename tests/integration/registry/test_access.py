"""From an id or digest to a row: hidden and absent are one answer."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.verbs import Verb
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.registry import access, queries
from lifecycle.registry.models import RepositoryImage
from tests.factories import dock

pytestmark = pytest.mark.django_db


def test_an_image_is_found_only_through_a_repository_one_sees() -> None:
    item, repository = dock.image("one"), dock.repository("shop/api")
    dock.push(repository, item, "1")
    viewer, stranger = (
        dock.user("vera", "viewer", of=dock.team("shop")),
        dock.user("eve", "owner", of=dock.team("base")),
    )
    assert access.image_for(viewer, item.digest) == item
    assert access.repository_for(viewer, repository.pk) == repository
    assert access.image_in(viewer, repository, item.digest) == item
    for digest in (item.digest, dock.sha("absent"), "nonsense"):
        with pytest.raises(NotFound) as hidden:
            access.image_for(stranger, digest)
        assert hidden.value.message == "There is no such image, or you may not see it."
    with pytest.raises(NotFound):
        access.repository_for(stranger, repository.pk)
    with pytest.raises(NotPermitted):
        access.repository_for(viewer, repository.pk, Verb.IMAGE_REBUILD)
    RepositoryImage.objects.update(removed_at="2026-01-01T00:00Z")
    with pytest.raises(NotFound):
        access.image_for(viewer, item.digest)


@pytest.mark.parametrize("count", [1, 3])
def test_lists_cost_the_same_queries_for_any_length(count: int, django_assert_num_queries: Any) -> None:
    viewer = dock.user("vera", "viewer", of=dock.team("shop"))
    for number in range(count):
        for tag in range(count):
            dock.push(dock.repository(f"shop/r{number}"), dock.image(f"i {number} {tag}"), f"1.{tag}", viewer)
    with django_assert_num_queries(2):  # the viewer's grants, the page
        rows = list(queries.repositories_with_latest_tag(viewer).order_by("-updated_at", "-pk"))
        assert [(row.team.slug, row.latest_tag) for row in rows] == [("shop", f"1.{count - 1}")] * count  # type: ignore[attr-defined]
    with django_assert_num_queries(2):
        members = list(queries.images_in(rows[0]).order_by("-pk"))
        assert len({row.image.tags_here[0].name for row in members}) == count  # type: ignore[attr-defined]
    with django_assert_num_queries(1):
        assert len([tag.image.digest for tag in queries.tags_in(rows[0]) if tag.image]) == count
    with django_assert_num_queries(2):
        assert len(queries.images_of(viewer).order_by("-pk")) == count * count
