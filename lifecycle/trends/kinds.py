"""The job kind of this package: note the findings of the day."""

from __future__ import annotations

from typing import Final

from lifecycle.jobs.kinds import Kind, register

TRENDS: Final = register(
    Kind(
        "trends",
        queue="match",
        label="Note the trend of findings",
        why_not_cancelled="This job cannot be cancelled, because the day would be missing in the trends.",
        is_retried_forever=True,
    )
)
