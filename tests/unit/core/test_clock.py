"""Dates that documents state: those that cannot be are not said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle.core import clock
from lifecycle.oci.manifests import parse_timestamp
from lifecycle.pages.templatetags.gravingdock import ago

CONSTANTS = (
    "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "1980-01-01T00:00:00-05:00",
    "1980-01-01T00:00:00Z", "1985-10-26T08:15:00Z", "9999-12-31T23:59:59Z",
)  # fmt: skip


@pytest.mark.parametrize("text", CONSTANTS)
def test_constant_of_a_reproducible_build_is_not_a_date(text):
    assert parse_timestamp(text) is None
    assert "not said" in ago(datetime.fromisoformat(text.replace("Z", "+00:00")))


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=4000), -timedelta(hours=3)])
def test_date_that_can_be_is_kept(age):
    moment = (clock.now() - age).replace(microsecond=0)
    assert parse_timestamp(moment.isoformat()) == moment
    assert clock.stated(moment) == moment


def test_date_in_the_future_states_nothing():
    assert clock.stated(clock.now() + timedelta(days=2)) is None
    assert clock.stated(None) is None


def test_deadline_in_the_future_is_shown():
    assert "in 3 d" in ago(clock.now() + timedelta(days=3, hours=1))
    assert "not said" not in ago(datetime(1990, 1, 1, tzinfo=UTC))
