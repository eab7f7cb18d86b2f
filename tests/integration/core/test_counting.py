"""Several counts in one statement."""

from __future__ import annotations

import pytest
from django.db.models import Q

from accounts.models import User
from lifecycle.core.counting import counts_of
from tests.factories import dock

pytestmark = pytest.mark.django_db


def test_each_queryset_is_counted_in_order_with_one_query(django_assert_num_queries) -> None:
    for name in ("ada", "kim", "100%s"):
        dock.user(name)
    people = User.objects.filter(username__in=("ada", "kim", "100%s"))
    with django_assert_num_queries(1):
        found = counts_of(
            people.order_by("username").select_related("secret_seen_by").distinct(), people.none(),
            people.filter(username="100%s"), people.filter(pk__in=[]), people.filter(~Q(username="ada")),
        )  # fmt: skip
    assert found == (3, 0, 1, 0, 2)


def test_nothing_is_asked_when_nothing_can_be_there(django_assert_num_queries) -> None:
    with django_assert_num_queries(0):
        assert counts_of(User.objects.none(), User.objects.filter(pk__in=[])) == (0, 0)
        assert counts_of() == ()
