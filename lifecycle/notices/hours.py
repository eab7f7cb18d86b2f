"""When a message may go: quiet hours, the daily digest, and the pauses between attempts. Pure functions."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

# After the first attempt: Standard Webhooks' own schedule, cut at a day.
RETRY_AFTER_S: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
RETRY_AFTER_MAX_S: Final = 3600.0  # of a server's Retry-After: nobody can park our messages for days


def quiet_end(now: datetime, start: time | None, end: time | None, zone: ZoneInfo) -> datetime | None:
    """Return when the quiet hours around `now` end, in UTC; None outside of them. They can last over midnight."""
    if start is None or end is None or start == end:
        return None
    today = now.astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        last = day if end > start else day + timedelta(days=1)
        if _moment(day, start, zone) <= now < (finish := _moment(last, end, zone)):
            return finish
    return None


def next_digest(now: datetime, at: time, zone: ZoneInfo) -> datetime:
    """Return the next moment after `now` at which clocks of `zone` show `at`, in UTC."""
    today = now.astimezone(zone).date()
    moments = (_moment(today + timedelta(days=days), at, zone) for days in range(3))
    return next(moment for moment in moments if moment > now)


def _moment(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return a local time in UTC. One that the clocks skip is as much later; of two, it is the first."""
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)


def next_attempt(
    first: datetime, attempts: int, now: datetime, *, jitter: float, retry_after_s: float | None = None
) -> datetime | None:
    """Return when to try again after `attempts` failed attempts since `first`; None when a day of attempts is over.

    `jitter` from 0 to 1 spreads the attempts by up to a tenth of the pause. A server may ask for a longer pause.
    """
    if attempts > len(RETRY_AFTER_S):
        return None
    before = RETRY_AFTER_S[attempts - 2] if attempts > 1 else 0
    pause = RETRY_AFTER_S[attempts - 1] - before
    moment = first + timedelta(seconds=RETRY_AFTER_S[attempts - 1] + pause * jitter / 10)
    least = now + timedelta(seconds=min(retry_after_s or 0.0, RETRY_AFTER_MAX_S))
    return max(moment, least)
