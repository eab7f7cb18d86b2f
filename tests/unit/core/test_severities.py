"""One list of severities. The models must agree with it."""

from __future__ import annotations

from lifecycle.advisories.models import Advisory
from lifecycle.core.severities import COUNTED, READING_ORDER, SEVERITIES
from lifecycle.registry.models import Image


def test_database_and_reading_order_have_same_severities():
    assert tuple(Advisory.Severity.values) == SEVERITIES
    assert set(READING_ORDER) == set(SEVERITIES)


def test_image_has_count_for_each_counted_severity():
    fields = {field.name for field in Image._meta.get_fields()}
    assert {f"{severity}_count" for severity in COUNTED} <= fields
