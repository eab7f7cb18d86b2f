"""Two looks for remedies at the same moment: the second waits, and the end is as after one."""

from __future__ import annotations

import pytest
from django.db import transaction

from lifecycle.core import clock
from lifecycle.remedies import services
from lifecycle.remedies.models import Remedy
from tests.factories import dock
from tests.racing import Race

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_looks_at_once_leave_each_remedy_once():
    dock.harbour()
    ids, _ = services.to_find(clock.now())

    def look():
        with transaction.atomic():
            services.find(ids)

    look()
    before = sorted(Remedy.objects.values_list("repository__name", "key"))
    assert before
    for _ in range(3):
        race = Race(look, look, look)
        assert sorted(race.done) == [0, 1, 2]
        assert sorted(Remedy.objects.values_list("repository__name", "key")) == before
