"""Metrics of feeds and alerts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lifecycle.advisories.models import Feed
from lifecycle.alerts.models import Alert
from lifecycle.core import clock
from tests.factories import dock as rows

pytestmark = pytest.mark.django_db


def test_age_of_each_feed_is_a_gauge_and_one_that_was_never_read_is_stale(client):
    now = clock.now()
    Feed.objects.create(name="fresh", location="/feeds/a", synced_at=now - timedelta(minutes=1))
    Feed.objects.create(name='old "one"', location="/feeds/b", synced_at=now - timedelta(hours=73))
    Feed.objects.create(name="never", location="/feeds/c")
    lines = client.get("/metrics").content.decode().splitlines()
    ages = [line for line in lines if line.startswith("gravingdock_feed_age_seconds{")]
    assert [line.rpartition(" ")[0] for line in ages] == [
        'gravingdock_feed_age_seconds{feed="fresh"}',
        'gravingdock_feed_age_seconds{feed="old \\"one\\""}',
    ]
    assert int(ages[1].rpartition(" ")[2]) >= 73 * 3600
    stale = [line for line in lines if line.startswith("gravingdock_feed_stale{")]
    assert stale == [
        'gravingdock_feed_stale{feed="fresh"} 0',
        'gravingdock_feed_stale{feed="never"} 1',
        'gravingdock_feed_stale{feed="old \\"one\\""} 1',
    ]


def test_live_alerts_are_counted_by_kind_and_severity(client):
    now = clock.now()
    team = rows.team("shop")
    for number, state in enumerate(("open", "acknowledged", "resolved")):
        Alert.objects.create(
            kind="finding.new", fingerprint=str(number), team=team, severity="high", state=state,
            first_at=now, last_at=now, resolved_at=now if state == "resolved" else None,
        )  # fmt: skip
    lines = client.get("/metrics").content.decode().splitlines()
    assert 'gravingdock_alerts{kind="finding.new",severity="high"} 2' in lines
