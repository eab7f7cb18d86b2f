"""The job of this package: scan one image."""

from __future__ import annotations

from typing import Final

from lifecycle.authority.subjects import image_subjects
from lifecycle.jobs.kinds import Kind, register

# Cancelling leaves no half-stored package list, and the image page shows that the scan did not finish.
SCAN: Final = register(
    Kind(
        "scan", queue="scan", label="Scan image", subjects=image_subjects, is_cancellable=True, is_retried_forever=True
    )
)
