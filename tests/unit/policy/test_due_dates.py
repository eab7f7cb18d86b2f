"""The table of due dates: the strictest row that applies decides, and wrong rows are refused with their place."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from lifecycle.core.errors import Malformed
from lifecycle.policy.due_dates import DAYS_MAX, DEFAULT, DueFact, DueRow, Exposure, due_at, rows_of

SEEN = datetime(2026, 11, 1, 12, tzinfo=UTC)


def days(fact, rows=DEFAULT):
    found = due_at(rows, fact)
    return None if found is None else (found - SEEN) / timedelta(days=1)


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (DueFact("critical", SEEN, "1.1"), 15),
        (DueFact("critical", SEEN), None),
        (DueFact("critical", SEEN, "1.1", exposure=Exposure(production=True)), 7),
        (DueFact("high", SEEN, "1.1"), 30),
        (DueFact("high", SEEN, "1.1", epss=0.1), 14),
        (DueFact("high", SEEN, "1.1", epss=0.09), 30),
        (DueFact("low", SEEN, "", date(2026, 10, 1)), 14),
        (DueFact("low", SEEN, "", date(2026, 10, 1), exposure=Exposure(internet=True)), 3),
        # Named by a KEV list later: the time begins then.
        (DueFact("low", SEEN, "", date(2026, 11, 11)), 23.5),
        (DueFact("none", SEEN, "1.1"), None),
        (DueFact("unknown", SEEN, "1.1"), 90),
    ],
)
def test_strictest_row_that_applies_decides(fact, expected):
    assert days(fact) == expected


def test_rows_survive_json_and_have_words():
    assert rows_of([row.as_json() for row in DEFAULT]) == DEFAULT
    assert DueRow(3, "high", exploited=True, min_epss_percent=5, fix="no", exposure="internet").words == (
        "high, known exploited, EPSS from 5 %, without a fix, facing the internet"
    )
    assert DueRow(3).words == "every finding"
    assert days(DueFact("none", SEEN), (DueRow(3),)) == days(DueFact("none", SEEN, "1.1"), (DueRow(3),)) == 3
    assert days(DueFact("high", SEEN, "1.1"), (DueRow(3, fix="no"),)) is None


def test_the_smallest_and_the_largest_values_are_accepted():
    rows = [{"days": 0, "min_epss_percent": 1}, {"days": DAYS_MAX, "min_epss_percent": 100}]
    assert [(row.days, row.min_epss_percent) for row in rows_of(rows)] == [(0, 1), (DAYS_MAX, 100)]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ({}, "list of at most 100"),
        ([[]], "Row 1: give an object"),
        ([{"days": 1}, {"days": -1}], "Row 2: days is a whole number from 0"),
        ([{"days": True}], "Row 1: days"),
        ([{"days": "3"}], "Row 1: days"),
        ([{"days": DAYS_MAX + 1}], "Row 1: days"),
        ([{"days": 1, "severity": "bad"}], "Row 1: severity is one of critical"),
        ([{"days": 1, "min_epss_percent": 0}], "Row 1: min_epss_percent"),
        ([{"days": 1, "min_epss_percent": 101}], "Row 1: min_epss_percent"),
        ([{"days": 1, "min_epss_percent": 1.5}], "Row 1: min_epss_percent"),
        ([{"days": 1, "min_epss_percent": True}], "Row 1: min_epss_percent"),
        ([{"days": 1, "exploited": "yes"}], "Row 1: exploited is true or false"),
        ([{"days": 1, "fix": "maybe"}], "Row 1: fix is one of yes, no"),
        ([{"days": 1, "speed": 1}], "Row 1: unknown field speed"),
        ([{"days": 1, "fix": "yes"}, {"days": 2, "fix": "yes"}], "Row 2 has the same conditions as row 1"),
        ([{"days": number} for number in range(101)], "at most 100"),
    ],
)
def test_wrong_rows_are_refused_with_their_place(rows, why):
    with pytest.raises(Malformed, match=why):
        rows_of(rows)
