"""One list of words for how bad a finding is; what else holds them has to agree."""

from __future__ import annotations

from lifecycle.advisories.models import Advisory
from lifecycle.core.severities import COUNTED, READING_ORDER, SEVERITIES
from lifecycle.registry.models import Image


def test_the_database_takes_the_words_that_we_order():
    assert tuple(Advisory.Severity.values) == SEVERITIES
    assert set(READING_ORDER) == set(SEVERITIES)


def test_an_image_has_a_count_of_each_counted_severity():
    fields = {field.name for field in Image._meta.get_fields()}
    assert {f"{word}_count" for word in COUNTED} <= fields
