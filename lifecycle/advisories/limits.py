"""The limits of one synchronisation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from lifecycle.core.errors import LimitExceeded


@dataclass(frozen=True, slots=True)
class Limits:
    """The bytes of one download or archive and of all CVE records unpacked, and when the run must end.

    The end is in seconds of time.monotonic().
    """

    max_bytes: int
    deadline: float

    @classmethod
    def default(cls) -> Self:
        """Return the limits of a run that somebody started on the machine itself: 4 GiB and a day."""
        return cls(4 * 1024**3, time.monotonic() + 86_400)

    def check_time(self) -> None:
        """Raise LimitExceeded when the time is over."""
        if time.monotonic() > self.deadline:
            raise LimitExceeded("The time limit of the feed is over. The next run continues. Or allow more minutes.")

    def seconds(self, most: float) -> float:
        """Return the seconds that are left for a download, at most `most`. Raises LimitExceeded when there are none."""
        self.check_time()
        return min(most, self.deadline - time.monotonic())

    def check_size(self, size_bytes: int, what: str) -> None:
        """Raise LimitExceeded when a file is too big."""
        if size_bytes > self.max_bytes:
            mib = self.max_bytes // 1024**2
            raise LimitExceeded(f"{what} is larger than {mib:,} MiB, the size limit of the feed.", limit=self.max_bytes)
