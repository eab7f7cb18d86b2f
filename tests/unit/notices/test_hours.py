"""Quiet hours, digests and pauses between attempts: arithmetic with clocks that change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from lifecycle.notices.hours import RETRY_AFTER_S, next_attempt, next_digest, quiet_end

BERLIN = ZoneInfo("Europe/Berlin")
KATHMANDU = ZoneInfo("Asia/Kathmandu")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-29T16:59", None),  # 17:59 in Berlin
        ("2026-11-29T17:00", "2026-11-30T07:00"),
        ("2026-11-29T23:30", "2026-11-30T07:00"),
        ("2026-11-30T06:59", "2026-11-30T07:00"),  # after midnight: the hours of the day before
        ("2026-11-30T07:00", None),
    ],
)
def test_quiet_hours_over_midnight(now: str, end: str | None) -> None:
    assert quiet_end(utc(now), time(18), time(8), BERLIN) == (utc(end) if end else None)


@pytest.mark.parametrize(
    ("now", "end"), [("2026-11-29T11:00", "2026-11-29T12:00"), ("2026-11-29T10:59", None), ("2026-11-29T12:00", None)]
)
def test_quiet_hours_within_a_day(now: str, end: str | None) -> None:
    assert quiet_end(utc(now), time(12), time(13), BERLIN) == (utc(end) if end else None)


def test_quiet_hours_follow_the_clocks_that_change() -> None:
    # In the night of 25 October 2026 the clocks of Berlin go back: 8:00 is 7:00 UTC after it, and 6:00 before.
    assert quiet_end(utc("2026-10-24T20:00"), time(22), time(8), BERLIN) == utc("2026-10-25T07:00")
    assert quiet_end(utc("2026-10-23T20:00"), time(22), time(8), BERLIN) == utc("2026-10-24T06:00")
    # On 29 March 2026 there is no 2:30: quiet hours until then end when the clocks have jumped over it.
    assert quiet_end(utc("2026-03-28T23:00"), time(22), time(2, 30), BERLIN) == utc("2026-03-29T01:30")


@pytest.mark.parametrize(("start", "end"), [(None, None), (None, time(8)), (time(8), None), (time(8), time(8))])
def test_no_quiet_hours(start: time | None, end: time | None) -> None:
    assert quiet_end(utc("2026-11-29T08:00"), start, end, BERLIN) is None


@pytest.mark.parametrize(
    ("now", "at", "zone", "moment"),
    [
        ("2026-11-29T06:59", time(8), BERLIN, "2026-11-29T07:00"),
        ("2026-11-29T07:00", time(8), BERLIN, "2026-11-30T07:00"),  # never twice at one moment
        ("2026-10-24T20:00", time(8), BERLIN, "2026-10-25T07:00"),
        ("2026-11-29T02:16", time(8), KATHMANDU, "2026-11-30T02:15"),
        ("2026-11-29T20:00", time(1), KATHMANDU, "2026-11-30T19:15"),
    ],
)
def test_digest_comes_at_its_local_time(now: str, at: time, zone: ZoneInfo, moment: str) -> None:
    assert next_digest(utc(now), at, zone) == utc(moment)


def test_attempts_go_on_for_a_day() -> None:
    first = utc("2026-11-29T08:00")
    found = [next_attempt(first, number, first, jitter=0) for number in range(1, len(RETRY_AFTER_S) + 2)]
    seconds = [(moment - first).total_seconds() for moment in found if moment is not None]
    assert seconds == list(RETRY_AFTER_S)
    assert (seconds[-1], found[-1]) == (86_400, None)


def test_jitter_is_a_tenth_of_the_pause_at_most() -> None:
    first = utc("2026-11-29T08:00")
    assert next_attempt(first, 2, first, jitter=1) == first + timedelta(seconds=300 + 29.5)


def test_retry_after_is_obeyed_up_to_an_hour() -> None:
    first = utc("2026-11-29T08:00")
    assert next_attempt(first, 1, first, jitter=0, retry_after_s=120) == first + timedelta(seconds=120)
    assert next_attempt(first, 1, first, jitter=0, retry_after_s=1) == first + timedelta(seconds=5)
    assert next_attempt(first, 1, first, jitter=0, retry_after_s=9e9) == first + timedelta(hours=1)
