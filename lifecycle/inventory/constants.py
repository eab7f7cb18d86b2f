"""When a reporter is late, and how long rows of the past stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

LATE_AFTER: Final = timedelta(seconds=90)
SILENT_AFTER: Final = timedelta(minutes=10)
CLOCK_AHEAD_MAX: Final = timedelta(minutes=5)  # a reporter's time further in the future is not believed
KEEP_REPORTS: Final = timedelta(hours=48)  # so long, the same report gets the same answer
KEEP_CONTAINERS: Final = timedelta(days=90)  # after they ended; images stay
BOOTS_MAX: Final = 20  # former boots of a reporter that are known
PENDING_MAX: Final = 200  # reports of one reporter that wait to be applied
