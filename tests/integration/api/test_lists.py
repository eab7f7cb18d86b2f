"""Lists read as plain rows have the same fields and values as the serializers, and one statement of their own."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Robot, Role, Team, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.authority import services
from lifecycle.authority.covers import whole_teams
from lifecycle.authority.lists import images_page
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import images_with_places, repositories_visible_to, teams_where
from lifecycle.core import clock
from lifecycle.registry.models import Image, Repository
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


def _odd_images(fleet: Any) -> None:
    """Add images with every kind of knowledge about their findings, and with odd texts."""
    now = clock.now()
    counted = {"scanned_at": now, "package_count": 80, "critical_count": 2, "low_count": 1, "fixable_count": 1}
    reasons = {"no purl": 3, "no advisories stored for npm": 12, "a range that cannot be read": 1, "no distribution": 1}
    for name, fields in {
        "not scanned": {"critical_count": 9, "unjudged_count": 4},
        "scan failed": {"scan_problem": "Not a tar archive."},
        "nothing recognised": {"scanned_at": now},
        "all dropped": {"scanned_at": now, "dropped_count": 2, "unjudged_count": 2},
        "none open": {"scanned_at": now.replace(microsecond=0), "package_count": 1},
        "open": counted,
        "open and unjudged": counted | {"unjudged_count": 17, "unjudged_reasons": reasons},
        "unjudged": {"scanned_at": now, "package_count": 1, "unjudged_count": 1, "unjudged_reasons": {"no purl": 1}},
        "partly read": counted | {"scan_problem": "Two layers are missing."},
        "odd texts": {"labels": {"ü\u2028": '"\\', "": "1e400"}, "annotations": {"a": ["b", None, 1.5, 10**30]}},
        "odd platform": {"os": "", "architecture": "arm", "variant": "v7", "created_at": None, "distro": "alpine-3.20"},
        "with a base": {"base_name": "shop/base:1", "base_digest": rows.sha("base")},
    }.items():
        image = rows.image(name)
        Image.objects.filter(pk=image.pk).update(**fields)
        rows.push(fleet.repository, image, name.replace(" ", "-"))
    rows.push(fleet.repository, rows.image("moved"), "moves")
    rows.push(fleet.repository, rows.image("moved again"), "moves")


@pytest.mark.parametrize("is_browser", [False, True])
def test_list_has_the_rows_of_the_serializer(fleet: Any, client: Client, is_browser: bool) -> None:
    _odd_images(fleet)
    User.objects.filter(pk=fleet.requester.pk).update(time_zone="Asia/Kathmandu")
    me = Caller(fleet.requester)
    get: Any = me.get
    if is_browser:
        client.force_login(fleet.requester, backend=settings.AUTHENTICATION_BACKENDS[0])
        get = lambda path: client.get(f"/api/v1/{path}")  # noqa: E731 -- the same call as above
    listed = get("images/").json()["results"]
    assert len(listed) == 6 + 14
    assert {row["findings"]["state"] for row in listed} == {"open", "none", "unknown"}
    assert listed == [get(f"images/{row['digest']}/").json() for row in listed]
    assert listed[0]["first_seen_at"].endswith("Z")


def test_pages_of_the_list_have_every_row_once(fleet: Any) -> None:
    me = Caller(fleet.requester)
    whole = me.get("images/").json()
    assert whole["next"] is None
    pages, address = [], "/api/v1/images/?limit=4"
    while address:
        answer = Client().get(address, headers=me.headers)
        page = answer.json()
        assert answer.headers.get("Link") == (f'<{page["next"]}>; rel="next"' if page["next"] else None)
        pages.append(page["results"])
        address = page["next"]
    assert [len(page) for page in pages] == [4, 2]
    assert [row for page in pages for row in page] == whole["results"]


@pytest.mark.parametrize(
    "query", [{}, {"repository": "shop/web"}, {"tag": "b-2"}, {"repository": "shop/api", "tag": "b-2"}, {"tag": "x-1"}]
)
def test_statement_selects_the_images_of_the_queryset(fleet: Any, query: dict[str, str]) -> None:
    expected = [
        image.pk
        for image in images_with_places(fleet.requester).order_by("-pk")
        if any(
            query.get("repository", place.repository.name) == place.repository.name
            and ("tag" not in query or (place.repository_id, query["tag"]) in _tags_seen(image))
            for place in image.places_seen  # type: ignore[attr-defined]  # prefetched
        )
    ]
    assert bool(expected) == (query != {"tag": "x-1"})  # only in the hidden repository
    assert [row.id for row in images_page(fleet.requester, **query, limit=99)] == expected
    if expected:
        rest = images_page(fleet.requester, **query, below=expected[0], limit=99)
        assert [row.id for row in rest] == expected[1:]


def _tags_seen(image: Any) -> set[tuple[int, str]]:
    return {(tag.repository_id, tag.name) for tag in image.tags_seen}


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
    listed = [(row.id, [place["repository"] for place in row.places]) for row in images_page(reader, limit=99)]
    assert listed == expected


def test_robot_is_bounded_by_its_maker_in_the_list(fleet: Any) -> None:
    robot = services.create_robot(fleet.team.pk, actor=fleet.owner, name="ci")
    services.grant_robot(robot.pk, actor=fleet.owner, role="viewer", repository_pattern="*")
    assert len(images_page(robot.user, limit=99)) == 6
    RoleGrant.objects.filter(user=fleet.owner).delete()
    assert images_page(type(robot.user).objects.get(pk=robot.user.pk), limit=99) == []


# What only a single row has, by its list.
ALONE: Final = {
    "repositories/": set(),
    "promotions/": {
        "requirements",
        "votes",
        "opens_at",
        "waiting",
        "why_not_automatic",
        "release_set",
        "superseded_by",
        "supersede_at",
        "review",
        "verify_by",
        "threads",
    },
    "audit-events/": set(),
    "environments/": {"approval_rules", "problem"},
}


@pytest.mark.parametrize("path", ALONE)
def test_flat_list_has_the_rows_of_the_serializer(dock: Any, request_: Any, path: str) -> None:
    me = Caller(dock.owner)
    listed = me.get(path).json()["results"]
    assert listed
    for row in listed:
        one = me.get(f"{path}{row['id']}/").json()
        assert row == {name: value for name, value in one.items() if name in row}
        assert set(one) - set(row) == ALONE[path]


def test_image_list_takes_three_statements_and_two_for_the_platforms_of_indexes(fleet: Any) -> None:
    robot = services.create_robot(fleet.team.pk, actor=fleet.owner, name="ci")
    services.grant_robot(robot.pk, actor=fleet.owner, role="viewer", repository_pattern="*")
    for user in (fleet.requester, robot.user):
        me = Caller(user)
        me.get("images/")
        with CaptureQueriesContext(connection) as statements:
            answer = me.get("images/")
        assert len(answer.json()["results"]) == 6
        assert len(statements) == 5, [query["sql"] for query in statements]
        with CaptureQueriesContext(connection) as statements:
            answer = me.get("images/", repository="shop/web")
        assert {row["kind"] for row in answer.json()["results"]} == {"manifest"}
        assert len(statements) == 3, [query["sql"] for query in statements]  # token with grants, images, quarantines
        found = TIMING.fullmatch(answer["Server-Timing"])
        assert found is not None
        assert int(found[2]) == len(statements)
        assert 0 < float(found[1]) < float(found[3])


@pytest.mark.parametrize("pattern", ["*", "shop/a*", "shop/web", "nothing/*"])
def test_grants_read_with_the_token_show_what_grants_read_alone_show(fleet: Any, pattern: str) -> None:
    reader = person("reader")
    viewer = Role.objects.get(slug="viewer")
    RoleGrant.objects.create(user=reader, team=fleet.team, role=viewer, repository_pattern=pattern)
    RoleGrant.objects.create(
        user=reader, team=rows.team("secret"), role=viewer, expires_at=clock.now() - timedelta(days=1)
    )
    robot = services.create_robot(fleet.team.pk, actor=fleet.owner, name="ci")
    services.grant_robot(robot.pk, actor=fleet.owner, role="viewer", repository_pattern=pattern)
    for user in (reader, robot.user):
        alone = {row.digest for row in images_page(user, limit=99)}
        assert bool(alone) == (pattern != "nothing/*")
        assert {row["digest"] for row in Caller(user).get("images/").json()["results"]} == alone
    RoleGrant.objects.filter(user=fleet.owner).delete()
    assert Caller(robot.user).get("images/").json()["results"] == []


def test_teams_from_grants_are_the_teams_of_the_queryset(fleet: Any) -> None:
    admin = User.objects.create(username="admin", is_superuser=True)
    by_admin = services.create_robot(fleet.team.pk, actor=fleet.owner, name="by-admin")
    Robot.objects.filter(pk=by_admin.pk).update(responsible=admin)
    by_owner = services.create_robot(fleet.team.pk, actor=fleet.owner, name="by-owner")
    orphan = services.create_robot(fleet.team.pk, actor=fleet.owner, name="orphan")
    Robot.objects.filter(pk=orphan.pk).update(responsible=None)
    auditor, part = Role.objects.get(slug="auditor"), rows.team("part")
    for robot in (by_admin, by_owner, orphan):
        for team in (fleet.team, part):
            RoleGrant.objects.create(user=robot.user, team=team, role=auditor, repository_pattern="*")
    RoleGrant.objects.create(user=fleet.requester, team=part, role=auditor, repository_pattern="shop/*")
    gone = User.objects.create(username="gone", is_active=False)
    RoleGrant.objects.create(user=gone, team=part, role=auditor)
    robots = [User.objects.get(pk=robot.user_id) for robot in (by_admin, by_owner, orphan)]
    sizes = []
    for user in (fleet.owner, fleet.requester, admin, gone, system_user(), *robots):
        found = whole_teams(user, Verb.AUDIT_READ)
        expected = set(teams_where(user, Verb.AUDIT_READ).values_list("pk", flat=True))
        assert (set(Team.objects.values_list("pk", flat=True)) if found is None else found) == expected, user
        sizes.append(None if found is None else len(found))
    assert sizes == [1, 0, None, 0, None, 2, 1, 0]


def test_robot_of_a_robot_is_bounded_by_both_makers(fleet: Any) -> None:
    """The query of the token reads one maker; longer chains are read when they are needed."""
    inner, outer = (services.create_robot(fleet.team.pk, actor=fleet.owner, name=name) for name in ("in", "out"))
    for robot in (inner, outer):
        services.grant_robot(robot.pk, actor=fleet.owner, role="viewer", repository_pattern="*")
    Robot.objects.filter(pk=outer.pk).update(responsible=inner.user)
    me = Caller(User.objects.get(pk=outer.user_id))
    assert len(me.get("images/").json()["results"]) == 6
    RoleGrant.objects.filter(user=fleet.owner).delete()
    assert me.get("images/").json()["results"] == []


def test_every_answer_has_its_timing(fleet: Any, client: Any) -> None:
    for path in ("/livez", "/accounts/sign-in/", "/nowhere/", "/api/v1/images/", "/api/v1/nowhere/"):
        assert TIMING.fullmatch(client.get(path)["Server-Timing"]), path


def test_a_verb_counts_only_where_a_role_has_it(fleet: Any) -> None:
    assert repositories_visible_to(fleet.requester, Verb.IMAGE_VIEW).exists()
    assert not repositories_visible_to(fleet.requester, Verb.PROMOTION_APPROVE).exists()
    assert repositories_visible_to(fleet.approver, Verb.PROMOTION_APPROVE).exists()
