"""The job kind of this package: count the findings of all images again."""

from __future__ import annotations

from typing import Final

from lifecycle.jobs.kinds import Kind, register

RECOUNT: Final = register(
    Kind(
        "recount",
        queue="match",
        label="Count findings again",
        why_not_cancelled="This job cannot be cancelled, because the counts of some images would stay wrong.",
        is_retried_forever=True,
    )
)
