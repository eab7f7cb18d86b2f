"""What somebody has for some days: nobody makes it last longer, in any way."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from accounts.models import Role, User
from accounts.queries import system_user
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.core.errors import NotPermitted
from lifecycle.declared import services as declared
from lifecycle.declared.document import read_text
from tests.factories.people import person, robot

pytestmark = pytest.mark.django_db
LATE = "You have these permissions until"


@pytest.fixture
def end() -> datetime:
    return clock.now() + timedelta(days=1)


@pytest.fixture
def guest(dock: SimpleNamespace, end: datetime) -> User:
    """Return an owner of the team for one day."""
    user = person("guest")
    services.add_member(dock.team.pk, actor=dock.owner, username="guest", role="owner", expires_at=end)
    person("friend")
    return user


@pytest.mark.parametrize("username", ["guest", "friend"])
@pytest.mark.parametrize("more", [None, timedelta(seconds=1)])
def test_owner_for_a_day_grants_for_no_longer(
    dock: SimpleNamespace, guest: User, end: datetime, username: str, more: timedelta | None
) -> None:
    late = None if more is None else end + more
    for role in ("owner", "viewer"):
        with pytest.raises(NotPermitted, match=LATE):
            services.add_member(dock.team.pk, actor=guest, username=username, role=role, expires_at=late)
    services.add_member(dock.team.pk, actor=guest, username=username, role="viewer", expires_at=end)
    assert RoleGrant.objects.get(user=guest, role__slug="owner").expires_at == end
    services.add_member(dock.team.pk, actor=dock.owner, username=username, role="owner")  # has no end
    assert RoleGrant.objects.get(user__username=username, role__slug="owner").expires_at is None


def test_neither_through_an_access_file(dock: SimpleNamespace, guest: User) -> None:
    document = read_text("version: 1\nteams: [{name: shop, grants: [{user: guest, role: owner}]}]")
    with pytest.raises(NotPermitted, match=LATE):
        declared.apply(document, actor=guest, etag=declared.compare(document, actor=guest).etag)
    declared.apply(document, actor=dock.owner, etag=declared.compare(document, actor=dock.owner).etag)
    assert RoleGrant.objects.get(user=guest).expires_at is None


def test_neither_through_groups(dock: SimpleNamespace, guest: User, end: datetime) -> None:
    crew = services.create_group(actor=guest, slug="crew", team="shop")
    with pytest.raises(NotPermitted, match=LATE):
        services.add_group(dock.team.pk, actor=guest, group="shop/crew", role="owner")
    services.add_group(dock.team.pk, actor=guest, group="shop/crew", role="owner", expires_at=end)
    services.add_to_group(crew.pk, actor=guest, username="guest")
    with pytest.raises(NotPermitted, match=LATE):  # also as a member of the group
        services.add_group(dock.team.pk, actor=guest, group="shop/crew", role="owner")
    services.add_group(dock.team.pk, actor=dock.owner, group="shop/crew", role="viewer")
    with pytest.raises(NotPermitted, match=LATE):
        services.add_to_group(crew.pk, actor=guest, username="friend")
    services.add_to_group(crew.pk, actor=dock.owner, username="friend")


def test_neither_through_robots_and_their_tokens(dock: SimpleNamespace, guest: User, end: datetime) -> None:
    row = robot(dock.team, "creator", maker=system_user())
    with pytest.raises(NotPermitted, match=LATE):
        services.grant_robot(row.pk, actor=guest, role="viewer")
    for days in (None, 2):
        with pytest.raises(NotPermitted, match=LATE):
            services.create_robot_token(row.pk, actor=guest, name="mine", days=days)
    assert services.create_robot_token(row.pk, actor=guest, name="mine", days=0.5)[1]
    assert services.create_robot_token(row.pk, actor=dock.owner, name="his", days=90)[1]


def test_robot_grants_for_no_longer_than_its_maker_may(dock: SimpleNamespace, guest: User, end: datetime) -> None:
    row = robot(dock.team, "owner", maker=guest)
    with pytest.raises(NotPermitted, match=LATE):
        services.add_member(dock.team.pk, actor=row.user, username="friend", role="viewer")
    services.add_member(dock.team.pk, actor=row.user, username="friend", role="viewer", expires_at=end)


def test_what_has_no_end_counts(dock: SimpleNamespace, guest: User) -> None:
    verbs = ["robot.manage", *Role.objects.get(slug="creator").verbs]
    RoleGrant.objects.create(
        user=guest, team=dock.team, role=Role.objects.create(slug="smith", name="Smith", verbs=verbs)
    )
    row = robot(dock.team, "creator", maker=system_user())
    assert services.create_robot_token(row.pk, actor=guest, name="mine", days=90)[1]  # may as smith
    admin = User.objects.create(username="root", is_superuser=True)
    services.add_member(dock.team.pk, actor=admin, username="friend", role="owner")
