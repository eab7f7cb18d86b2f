"""A vote on a release set looks up once who is excluded, however many members the set has."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from lifecycle.core import clock
from lifecycle.core.errors import NotPermitted
from lifecycle.promotion import exclusions, release_sets
from lifecycle.promotion.models import PromotionRequest, ReleaseSet, Vote
from lifecycle.promotion.release_sets import Wanted
from tests.factories import dock as rows

pytestmark = pytest.mark.django_db
ACTS = {
    "approve": lambda pk, dock: release_sets.approve(pk, actor=dock.approver),
    "object": lambda pk, dock: release_sets.object_to(pk, actor=dock.approver, reason="wait"),
    "reject": lambda pk, dock: release_sets.reject(pk, actor=dock.approver, reason="no"),
}


def ask(dock: Any, count: int) -> ReleaseSet:
    wanted = []
    for number in range(count):
        place = rows.repository(f"shop/{count}-{number}", dock.team)
        image = rows.image(f"{count}-{number}", layers=1, scanned_at=clock.now(), package_count=1)
        rows.push(place, image, "1.0")
        wanted.append(Wanted(place, tag="1.0"))
    return release_sets.request_set(wanted, dock.staging, actor=dock.requester, reason="release")


def look_ups(act: Any, pk: int, dock: Any) -> int:
    """Return how often the act asked who started a rebuild of the images, which only a look-up of exclusions asks."""
    with CaptureQueriesContext(connection) as queries:
        act(pk, dock)
    return sum("lifecycle_rebuildjob" in query["sql"] and "new_image" in query["sql"] for query in queries)


@pytest.mark.parametrize("name", ACTS)
def test_vote_looks_up_exclusions_once_for_any_number_of_members(name: str, dock: Any) -> None:
    assert [look_ups(ACTS[name], ask(dock, count).pk, dock) for count in (2, 9)] == [1, 1]


def test_own_vote_is_withdrawn_and_an_objection_overruled_with_one_look_up(dock: Any) -> None:
    made = ask(dock, 5)
    release_sets.object_to(made.pk, actor=dock.approver, reason="wait")
    assert look_ups(lambda pk, dock: release_sets.withdraw_vote(pk, actor=dock.approver), made.pk, dock) == 1
    release_sets.object_to(made.pk, actor=dock.second, reason="wait")
    overrule = lambda pk, dock: release_sets.overrule(pk, "second", actor=dock.owner, reason="checked")  # noqa: E731 -- as ACTS
    assert look_ups(overrule, made.pk, dock) == 1


def test_one_look_up_still_excludes_the_requester_of_each_member(dock: Any) -> None:
    made = ask(dock, 3)
    PromotionRequest.objects.filter(release_set=made).update(requested_by=dock.approver)
    with pytest.raises(NotPermitted, match="your own request"):
        release_sets.approve(made.pk, actor=dock.approver)
    assert not Vote.objects.exists()
    release_sets.approve(made.pk, actor=dock.second)
    assert Vote.objects.count() == 3


def test_look_up_ends_with_its_act(dock: Any) -> None:
    made = ask(dock, 2)
    release_sets.approve(made.pk, actor=dock.approver)
    member = PromotionRequest.objects.filter(release_set=made).earliest("pk")
    PromotionRequest.objects.update(requested_by=dock.second)
    member.refresh_from_db()
    assert set(exclusions.excluded_from(member)) == {dock.second.pk}
    with pytest.raises(RuntimeError):
        exclusions.look_up([member])
