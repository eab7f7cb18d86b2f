"""Two requests at once never leave a team without an owner (issue 10: races on the last owner)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from accounts.models import Role, User
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.core.errors import Conflict
from tests.factories import dock as docks
from tests.factories.people import person, robot
from tests.racing import Race

pytestmark = pytest.mark.django_db(transaction=True)


def _revoke(grant: RoleGrant, actor: User) -> Any:
    return services.revoke_grant(grant.pk, actor=actor)


def _shorten(grant: RoleGrant, actor: User) -> Any:
    ends = clock.now().replace(year=clock.now().year + 1)
    return services.add_member(grant.team_id, actor=actor, username=str(grant.user), role="owner", expires_at=ends)


def test_robot_is_no_owner(dock: Any) -> None:
    made = robot(dock.team, "owner", maker=dock.owner)
    assert RoleGrant.objects.filter(user=made.user, role__slug="owner").exists()
    grant = RoleGrant.objects.get(user=dock.owner, role__slug="owner")
    with pytest.raises(Conflict, match="last owner"):
        services.revoke_grant(grant.pk, actor=dock.owner)


@pytest.mark.parametrize("ways", [(_revoke, _revoke), (_revoke, _shorten)], ids=["revoke both", "revoke and shorten"])
def test_one_of_two_owners_stays(ways: tuple[Callable[[RoleGrant, User], Any], ...]) -> None:
    team = docks.team("shop")
    owner = Role.objects.get(slug="owner")
    people = [person(name) for name in ("ann", "ben")]
    grants = [RoleGrant.objects.create(user=user, team=team, role=owner) for user in people]
    first, second = ways
    race = Race(lambda: first(grants[0], people[0]), lambda: second(grants[1], people[1]))
    assert len(race.done) == 1
    assert RoleGrant.objects.filter(team=team, role=owner, expires_at=None).count() == 1
