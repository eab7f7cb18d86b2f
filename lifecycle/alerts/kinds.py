"""The job kind of this package: find differences and tell the teams."""

from __future__ import annotations

from typing import Final

from lifecycle.jobs.kinds import Kind, register

ALERTS: Final = register(
    Kind(
        "alerts",
        queue="match",
        label="Find what to alert on",
        why_not_cancelled="This job cannot be cancelled, because teams would not be told what changed.",
        is_retried_forever=True,
    )
)
