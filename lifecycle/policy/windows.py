"""Freeze and allow windows: whether promotions may run at a moment, and when they may next. Pure, no clock."""

from __future__ import annotations

import re
import zoneinfo
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from dateutil.rrule import rrule, rrulestr

HORIZON: Final = timedelta(days=400)  # how far ahead the next opening is looked for
DURATION_MAX: Final = timedelta(days=366)
_RULE_MAX: Final = 200
_INTERVAL_MAX: Final = 60
_FREQUENCIES: Final = frozenset({"DAILY", "WEEKLY", "MONTHLY", "YEARLY"})
_PARTS: Final = frozenset({"FREQ", "INTERVAL", "UNTIL", "BYDAY", "BYMONTH", "BYMONTHDAY", "WKST"})
_DAY: Final = timedelta(days=1)
_INSTANT: Final = timedelta(microseconds=1)
_SOON: Final = timedelta(days=15)
_UNTIL: Final = re.compile(r"(\d{8})(T\d{6})?\Z")


class WindowProblem(ValueError):
    """A window cannot be used. The message says what to change."""


class Kind(StrEnum):
    FREEZE = "freeze"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Window:
    """A period in which nothing runs (freeze), or outside of which nothing runs (allow), once or repeated.

    `starts` and `duration` are wall-clock times of `zone`: a window from 22:00 to 06:00 ends at 06:00 also in the night
    in which the clocks change.
    """

    name: str
    kind: Kind
    level: str  # site, team or environment; each level that has allow windows must be in one of its own
    starts: datetime  # without zone
    duration: timedelta
    zone: str
    rule: str = ""  # RRULE of RFC 5545; "" for once


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether promotions may run at a moment. `opens_at` is None when open, or when none was found in HORIZON."""

    is_open: bool
    why: str = ""  # a sentence without the next opening
    opens_at: datetime | None = None


def check(window: Window) -> None:
    """Raise WindowProblem if the window cannot be used."""
    if window.zone not in zoneinfo.available_timezones():
        raise WindowProblem(f"Unknown time zone {window.zone[:60]}. Use a name like Europe/Berlin.")
    if not 1990 <= window.starts.year <= 2200:
        raise WindowProblem("The start must be in the years 1990 to 2200.")
    if not timedelta(0) < window.duration <= DURATION_MAX:
        raise WindowProblem("The window must end after it starts, and last at most 366 days.")
    if window.rule and next(iter(_parsed(window)), None) is None:
        raise WindowProblem(f"The repetition {window.rule} never occurs.")


def state_at(windows: Sequence[Window], moment: datetime) -> Opening:
    """Return whether promotions may run at `moment` (aware). A freeze wins over every allow window."""
    levels = {window.level for window in windows if window.kind == Kind.ALLOW}
    now = [window for window in windows if occurrences(window, moment, moment + _INSTANT)]
    why = _why_closed(now, levels)
    if not why:
        return Opening(True)
    for ahead in (_SOON, HORIZON):  # the next opening is mostly close, and a year of occurrences takes longer
        until = moment + ahead
        periods = [(window, period) for window in windows for period in occurrences(window, moment, until)]
        if (opens_at := _next_opening(periods, levels, moment, until)) is not None:
            return Opening(False, why, opens_at)
    return Opening(False, why)


def occurrences(window: Window, after: datetime, before: datetime) -> list[tuple[datetime, datetime]]:
    """Return the periods of a window that overlap `after` to `before`, in UTC, by start.

    A local time that occurs twice, or not at all, when clocks change is read so that promotions stay closed.
    """
    zone = zoneinfo.ZoneInfo(window.zone)
    first = after.astimezone(zone).replace(tzinfo=None) - window.duration - _DAY
    last = before.astimezone(zone).replace(tzinfo=None) + _DAY
    found = []
    for start in _starts(window, first, last):
        early, late = (min, max) if window.kind == Kind.FREEZE else (max, min)
        begins, ends = early(_in_utc(start, zone)), late(_in_utc(start + window.duration, zone))
        if begins < ends and begins < before and ends > after:
            found.append((begins, ends))
    return sorted(found)


def _in_utc(local: datetime, zone: zoneinfo.ZoneInfo) -> tuple[datetime, datetime]:
    """Return both readings of a local time; they differ only where clocks change."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first, second


def _starts(window: Window, first: datetime, last: datetime) -> Iterator[datetime]:
    if not window.rule:
        if first <= window.starts <= last:
            yield window.starts
        return
    yield from _parsed(window, last).between(first, last, inc=True)


def _parsed(window: Window, last: datetime | None = None) -> rrule:
    """Return the rule, ended at `last`: without an end, it would go on to the year 9999.

    The end only counts when a start is found, so `check` refuses a rule that has none: each answer would take seconds.
    """
    parts = _parts_of(window.rule)
    until = parts.pop("UNTIL", "")
    try:
        ends = _until(until) if until else datetime(2300, 1, 1)  # noqa: DTZ001 -- the window's own zone
        if last is not None:
            ends = min(ends, last)
        parts["UNTIL"] = f"{ends:%Y%m%dT%H%M%S}"
        rule = rrulestr(";".join(f"{name}={value}" for name, value in parts.items()), dtstart=window.starts)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise WindowProblem(f"The repetition {window.rule} cannot be read: {error}"[:300]) from None
    if not isinstance(rule, rrule):
        raise WindowProblem("Give one repetition, such as FREQ=WEEKLY;BYDAY=MO,TU.")
    return rule


def _parts_of(text: str) -> dict[str, str]:
    if len(text) > _RULE_MAX:
        raise WindowProblem(f"The repetition has more than {_RULE_MAX} characters.")
    parts: dict[str, str] = {}
    for part in text.removeprefix("RRULE:").split(";"):
        name, _, value = part.partition("=")
        if name not in _PARTS or not value or name in parts or not value.isascii():
            known = ", ".join(sorted(_PARTS))
            raise WindowProblem(
                f"Cannot use {part[:40] or 'an empty part'} in a repetition. Parts: {known}, each once."
            )
        parts[name] = value
    if parts.get("FREQ") not in _FREQUENCIES:
        raise WindowProblem(f"Start the repetition with FREQ={', FREQ='.join(sorted(_FREQUENCIES))}.")
    if parts["FREQ"] in {"DAILY", "WEEKLY"} and not {"BYMONTH", "BYMONTHDAY"}.isdisjoint(parts):
        raise WindowProblem("Use FREQ=YEARLY or FREQ=MONTHLY with BYMONTH and BYMONTHDAY.")
    interval = parts.get("INTERVAL", "1")
    if not interval.isdigit() or not 1 <= int(interval) <= _INTERVAL_MAX:
        raise WindowProblem(f"INTERVAL must be 1 to {_INTERVAL_MAX}.")
    return parts


def _until(text: str) -> datetime:
    """Return the last start; a date means the whole day. Raises WindowProblem for a time in UTC."""
    match = _UNTIL.match(text)
    if match is None:
        raise WindowProblem("Write UNTIL as 20261231 or 20261231T235959, in the window's own time zone, without Z.")
    if match[2]:
        return datetime.strptime(text, "%Y%m%dT%H%M%S")  # noqa: DTZ007 -- the window's own zone
    return datetime.combine(datetime.strptime(text, "%Y%m%d"), time(23, 59, 59))  # noqa: DTZ007 -- as above


def _why_closed(now: Sequence[Window], levels: set[str]) -> str:
    """Return why nothing may run while the windows `now` apply; "" when something may."""
    freezes = [window for window in now if window.kind == Kind.FREEZE]
    if freezes:
        return f"Freeze: {', '.join(sorted({window.name for window in freezes}))}."
    outside = levels - {window.level for window in now}
    return f"Outside the allowed hours of the {' and the '.join(sorted(outside))}." if outside else ""


def _next_opening(
    periods: Sequence[tuple[Window, tuple[datetime, datetime]]], levels: set[str], moment: datetime, until: datetime
) -> datetime | None:
    """Return the first time after `moment` and before `until` at which nothing is closed."""
    changes: list[tuple[datetime, str, int]] = []
    running: Counter[str] = Counter()
    for window, (start, end) in periods:
        key = "freeze" if window.kind == Kind.FREEZE else f"allow {window.level}"
        if start <= moment:
            running[key] += 1
        else:
            changes.append((start, key, 1))
        changes.append((end, key, -1))
    changes.sort(key=lambda change: change[0])
    for number, (at, key, by) in enumerate(changes):
        if at >= until:
            return None
        running[key] += by
        is_last_at_this_time = number + 1 == len(changes) or changes[number + 1][0] != at
        if is_last_at_this_time and not running["freeze"] and all(running[f"allow {level}"] for level in levels):
            return at
    return None
