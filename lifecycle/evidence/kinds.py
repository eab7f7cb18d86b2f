"""The job kinds of this package: count findings again, hold images with malicious packages, and apply VEX."""

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
HOLD_MALICIOUS: Final = register(
    Kind(
        "hold_malware",
        queue="match",
        label="Quarantine malicious packages",
        why_not_cancelled="This job cannot be cancelled, because images with a malicious package would stay usable.",
        is_retried_forever=True,
    )
)
APPLY_VEX: Final = register(
    Kind(
        "apply_vex",
        queue="match",
        label="Apply VEX statements",
        why_not_cancelled="This job cannot be cancelled, because the findings of some images would stay wrong.",
        is_retried_forever=True,
    )
)
APPLY_WAIVER: Final = register(
    Kind(
        "apply_waiver",
        queue="match",
        label="Apply waivers",
        why_not_cancelled="This job cannot be cancelled, because the findings of some images would stay wrong.",
        is_retried_forever=True,
    )
)
