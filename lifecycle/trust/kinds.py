"""The job kinds of this package: verify the signatures of one image, and read the SBOMs that a registry holds of it."""

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

READ_SBOMS: Final = register(
    Kind(
        "read-sboms",
        queue="ingest",
        label="Read attached SBOMs",
        subjects=image_subjects,
        is_cancellable=True,
    )
)
