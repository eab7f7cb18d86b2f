"""When a finding has to be fixed: the table of due dates, as pure functions. The strictest row that applies decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM, READING_ORDER, UNKNOWN

ROWS_MAX: Final = 100
DAYS_MAX: Final = 3650
FIXES: Final = ("", "yes", "no")
EXPOSURES: Final = ("", "production", "internet")
_FIELDS: Final = ("severity", "exploited", "min_epss_percent", "fix", "exposure", "days")


@dataclass(frozen=True, slots=True)
class Exposure:
    """Where an image runs."""

    production: bool = False  # in an environment that is production
    internet: bool = False  # in one that can be reached from the internet


@dataclass(frozen=True, slots=True)
class DueRow:
    """One row: findings that meet all of its conditions are due `days` after they were first seen. "" does not limit.

    A row for exploited findings counts from the day on which a KEV list named them, if that is later.
    """

    days: int
    severity: str = ""
    exploited: bool = False  # only what a KEV list names
    min_epss_percent: int | None = None  # only with an EPSS score from this on
    fix: str = ""  # yes: only with a fixed version; no: only without
    exposure: str = ""  # production, internet: only what runs there

    def as_json(self) -> dict[str, Any]:
        """Return the row as it is stored, and as the API shows it."""
        return {name: getattr(self, name) for name in _FIELDS}

    @property
    def words(self) -> str:
        """The conditions in words: `critical, with a fix, in production`."""
        parts = [
            self.severity,
            "known exploited" if self.exploited else "",
            f"EPSS from {self.min_epss_percent} %" if self.min_epss_percent is not None else "",
            {"": "", "yes": "with a fix", "no": "without a fix"}[self.fix],
            {"": "", "production": "in production", "internet": "facing the internet"}[self.exposure],
        ]
        return ", ".join(part for part in parts if part) or "every finding"

    def start(self, fact: DueFact) -> datetime | None:
        """Return when the time of this row begins for a finding; None when it does not apply."""
        is_fixable = bool(fact.fixed_version)
        if (
            (self.severity and self.severity != fact.severity)
            or (self.exploited and fact.exploited_on is None)
            or (self.min_epss_percent is not None and (fact.epss or 0.0) * 100 < self.min_epss_percent)
            or (self.fix and (self.fix == "yes") != is_fixable)
            or (self.exposure == "production" and not fact.exposure.production)
            or (self.exposure == "internet" and not fact.exposure.internet)
        ):
            return None
        if self.exploited and fact.exploited_on is not None:
            return max(fact.first_seen, datetime.combine(fact.exploited_on, time(), UTC))
        return fact.first_seen


@dataclass(frozen=True, slots=True)
class DueFact:
    """What decides when a finding is due."""

    severity: str
    first_seen: datetime
    fixed_version: str = ""
    exploited_on: date | None = None
    epss: float | None = None
    exposure: Exposure = Exposure()


def lists_of(rows: Sequence[DueRow]) -> frozenset[str]:
    """Return the lists that a table depends on: kev, epss."""
    needs = {"kev": any(row.exploited for row in rows), "epss": any(row.min_epss_percent is not None for row in rows)}
    return frozenset(name for name, is_needed in needs.items() if is_needed)


# The table until an admin saves another one. Without a fix, only what is exploited is due.
DEFAULT: Final = (
    DueRow(3, exploited=True, exposure="internet"),
    DueRow(7, exploited=True, exposure="production"),
    DueRow(14, exploited=True),
    DueRow(7, CRITICAL, fix="yes", exposure="production"),
    DueRow(15, CRITICAL, fix="yes"),
    DueRow(14, HIGH, min_epss_percent=10, fix="yes"),
    DueRow(30, HIGH, fix="yes"),
    DueRow(90, MEDIUM, fix="yes"),
    DueRow(90, UNKNOWN, fix="yes"),
    DueRow(180, LOW, fix="yes"),
)


def due_at(rows: Sequence[DueRow], fact: DueFact) -> datetime | None:
    """Return when a finding is due: the earliest time of all rows that apply. None when none applies."""
    return min(
        (start + timedelta(days=row.days) for row in rows if (start := row.start(fact)) is not None), default=None
    )


def rows_of(listed: Any) -> tuple[DueRow, ...]:
    """Return the rows of a table from JSON; raises Malformed, which says which row and what to enter."""
    if not isinstance(listed, list) or len(listed) > ROWS_MAX:
        raise Malformed(f"Give a list of at most {ROWS_MAX} rows.", field="rows")
    rows = tuple(_row(number, item) for number, item in enumerate(listed, 1))
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows, 1):
        key = (row.severity, row.exploited, row.min_epss_percent, row.fix, row.exposure)
        if key in seen:
            raise Malformed(f"Row {number} has the same conditions as row {seen[key]}. Keep one of them.", field="rows")
        seen[key] = number
    return rows


def _row(number: int, item: Any) -> DueRow:
    def refuse(why: str) -> Malformed:
        return Malformed(f"Row {number}: {why}", field="rows")

    if not isinstance(item, Mapping):
        raise refuse("give an object with days, and conditions.")
    if extra := sorted(set(map(str, item)) - set(_FIELDS)):
        raise refuse(f"unknown field {extra[0][:60]}. Known: {', '.join(_FIELDS)}.")
    days, percent = item.get("days"), item.get("min_epss_percent")
    if not isinstance(days, int) or isinstance(days, bool) or not 0 <= days <= DAYS_MAX:
        raise refuse(f"days is a whole number from 0 to {DAYS_MAX}.")
    if percent is not None and (not isinstance(percent, int) or isinstance(percent, bool) or not 1 <= percent <= 100):
        raise refuse("min_epss_percent is a whole number from 1 to 100, or null.")
    if not isinstance(exploited := item.get("exploited", False), bool):
        raise refuse("exploited is true or false.")
    for name, allowed in (("severity", ("", *READING_ORDER)), ("fix", FIXES), ("exposure", EXPOSURES)):
        if item.get(name, "") not in allowed:
            raise refuse(f'{name} is one of {", ".join(allowed[1:])}, or "".')
    return DueRow(
        days, item.get("severity", ""), exploited, percent, fix=item.get("fix", ""), exposure=item.get("exposure", "")
    )
