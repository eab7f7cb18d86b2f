"""The job kind of this package: read and verify the signatures of one image."""

from __future__ import annotations

from typing import Final

from lifecycle.authority.subjects import image_subjects
from lifecycle.jobs.kinds import Kind, register

VERIFY: Final = register(
    Kind(
        "verify",
        queue="ingest",
        label="Verify signatures",
        subjects=image_subjects,
        is_cancellable=True,
    )
)
