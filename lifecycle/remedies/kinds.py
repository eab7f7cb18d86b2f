"""The job kind of this package: find the remedies of changed images."""

from __future__ import annotations

from typing import Final

from lifecycle.jobs.kinds import Kind, register

REMEDIES: Final = register(
    Kind(
        "remedies",
        queue="match",
        label="Find remedies",
        why_not_cancelled="This job cannot be cancelled, because the fixes of some images would stay wrong.",
        is_retried_forever=True,
    )
)
