"""The job kind of this package: scan the packages of one image."""

from __future__ import annotations

from typing import Final

from lifecycle.authority.subjects import image_subjects
from lifecycle.jobs.kinds import Kind, register

# Can be cancelled: a package list is never stored in part, and the image page shows that the scan did not finish.
SCAN: Final = register(
    Kind(
        "scan",
        queue="scan",
        label="Scan packages",
        subjects=image_subjects,
        is_cancellable=True,
        is_retried_forever=True,
    )
)
