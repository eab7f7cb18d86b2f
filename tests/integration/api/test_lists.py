"""Lists read as plain rows have the same fields and values as the serializers, and one statement of their own."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Role
from accounts.verbs import Verb
from lifecycle.authority.lists import images_page
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import images_with_places, repositories_visible_to
from lifecycle.core import clock
from lifecycle.registry.models import Repository
from tests.clients import Caller
from tests.factories import dock as rows
from tests.factories.people import person

pytestmark = pytest.mark.django_db

TIMING = re.compile(r'db;dur=(\d+\.\d\d);desc="(\d+) statements", total;dur=(\d+\.\d\d)')


@pytest.fixture
def fleet(dock: Any) -> Any:
    """Images in several repositories, with several tags, labels and counts; some hidden from the caller."""
    hidden = rows.repository("secret/api")
    other = rows.repository("shop/web")
    for number in range(4):
        image = rows.image(
            f"image {number}", architecture="arm64" if number % 2 else "", labels={"a": "ü", "n": str(number)}
        )
        image.critical_count, image.unknown_count, image.created_at = number, 7, clock.now().replace(microsecond=0)
        image.save()
        for where in (dock.repository, other, hidden)[: number + 1]:
            for tag in ("b", "B", f"v{number}"):
                rows.push(where, image, f"{tag}-{number}")
        rows.push(hidden, image, f"x-{number}")
    rows.push(hidden, rows.image("only hidden"), "1.0")
    rows.push(dock.repository, rows.index("both", image), "both")
    return dock


def test_list_has_the_rows_of_the_serializer(fleet: Any) -> None:
    me = Caller(fleet.requester)
    listed = me.get("images/").json()["results"]
    assert len(listed) == 6
    assert listed == [me.get(f"images/{row['digest']}/").json() for row in listed]


@pytest.mark.parametrize(
    "query", [{}, {"repository": "shop/web"}, {"tag": "b-2"}, {"repository": "shop/api", "tag": "b-2"}]
)
def test_statement_selects_the_images_of_the_queryset(fleet: Any, query: dict[str, str]) -> None:
    expected = images_with_places(fleet.requester, **query).order_by("-pk")
    assert expected.exists()
    assert [pk for pk, _ in images_page(fleet.requester, **query, limit=99)] == [image.pk for image in expected]
    (first, *_) = expected
    rest = images_page(fleet.requester, **query, below=first.pk, limit=99)
    assert [pk for pk, _ in rest] == [image.pk for image in expected][1:]


@pytest.mark.parametrize(
    ("pattern", "in_environment"),
    [("*", False), ("shop/a*", False), ("shop/web", False), ("*", True), ("s_op/*", False)],
)
def test_grants_cover_the_same_rows_in_sql(fleet: Any, pattern: str, in_environment: bool) -> None:
    reader = person("reader")
    for expires_at in (None, clock.now() - timedelta(days=1)):
        RoleGrant.objects.create(
            user=reader,
            team=fleet.team if expires_at is None else rows.team("secret"),
            role=Role.objects.get(slug="viewer"),
            repository_pattern=pattern,
            environment=fleet.dev if in_environment else None,
            expires_at=expires_at,
        )
    if in_environment:
        Repository.objects.filter(name="shop/web").update(environment=fleet.dev, source=fleet.repository)
    visible = repositories_visible_to(reader)
    assert visible.exists() != (pattern == "s_op/*")
    images = images_with_places(reader).order_by("-pk")
    expected = [
        (image.pk, [place.repository.name for place in image.places_seen])  # type: ignore[attr-defined]  # prefetched
        for image in images
    ]
    listed = [(pk, [place["repository"] for place in row["places"]]) for pk, row in images_page(reader, limit=99)]
    assert listed == expected


def test_robot_is_bounded_by_its_maker_in_the_list(fleet: Any) -> None:
    from lifecycle.authority import services

    robot = services.create_robot(fleet.team.pk, actor=fleet.owner, name="ci")
    services.grant_robot(robot.pk, actor=fleet.owner, role="viewer", repository_pattern="*")
    assert len(images_page(robot.user, limit=99)) == 6
    RoleGrant.objects.filter(user=fleet.owner).delete()
    assert images_page(type(robot.user).objects.get(pk=robot.user.pk), limit=99) == []


@pytest.mark.parametrize("path", ["repositories/", "promotions/", "audit-events/", "environments/"])
def test_flat_list_has_the_rows_of_the_serializer(dock: Any, request_: Any, path: str) -> None:
    me = Caller(dock.owner)
    listed = me.get(path).json()["results"]
    assert listed
    for row in listed:
        one = me.get(f"{path}{row['id']}/").json()
        assert row == {name: value for name, value in one.items() if name in row}
        assert set(one) - set(row) <= {"requirements", "votes"}


def test_image_list_takes_five_statements(fleet: Any) -> None:
    me = Caller(fleet.requester)
    me.get("images/")
    with CaptureQueriesContext(connection) as statements:
        answer = me.get("images/")
    assert len(statements) <= 5, [query["sql"] for query in statements]  # token, grants, images, places, tags
    found = TIMING.fullmatch(answer["Server-Timing"])
    assert found is not None
    assert int(found[2]) == len(statements)
    assert 0 < float(found[1]) < float(found[3])


def test_every_answer_has_its_timing(fleet: Any, client: Any) -> None:
    for path in ("/livez", "/accounts/sign-in/", "/nowhere/", "/api/v1/images/", "/api/v1/nowhere/"):
        assert TIMING.fullmatch(client.get(path)["Server-Timing"]), path


def test_a_verb_counts_only_where_a_role_has_it(fleet: Any) -> None:
    assert repositories_visible_to(fleet.requester, Verb.IMAGE_VIEW).exists()
    assert not repositories_visible_to(fleet.requester, Verb.PROMOTION_APPROVE).exists()
    assert repositories_visible_to(fleet.approver, Verb.PROMOTION_APPROVE).exists()
