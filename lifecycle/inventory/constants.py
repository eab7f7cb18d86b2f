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
OBSERVED_MAX: Final = timedelta(hours=1)  # a reporter's time further in the past is not believed either
REPORTERS_MAX: Final = 1000  # of a cluster: a host each
WAITING_MAX_BYTES: Final = 256 * 1024 * 1024  # of the reports of one cluster that wait
FORGET_REPORTERS: Final = timedelta(days=60)  # after the last report: the host is gone
