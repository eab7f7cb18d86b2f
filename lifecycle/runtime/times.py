"""Times as machines write them: with nanoseconds, without a zone, or with something behind the zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d{1,12}))?\s*(?:([Zz])|([+-])(\d\d):?(\d\d)?)?"
)
_FIRST_YEAR: Final = 2000  # Docker writes 0001-01-01 for "never"


def read_time(value: Any) -> datetime | None:
    """Return a time in text (RFC 3339) or in seconds since 1970; None for none, or for one before the year 2000.

    What stands behind the zone is ignored: Falco's examples have `...746609046Z+2`.
    """
    try:
        found = _seconds(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _text(value)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found is not None and found.year >= _FIRST_YEAR else None


def _seconds(value: float) -> datetime:
    return datetime.fromtimestamp(value, UTC)


def _text(value: Any) -> datetime | None:
    match = _TIME.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    day, clock, fraction, _, sign, hours, minutes = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0')[:6]:0<6}")
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    return moment.replace(tzinfo=timezone(-offset if sign == "-" else offset)).astimezone(UTC)
