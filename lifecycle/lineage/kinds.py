"""The job of this package: find the base images of one image."""

from __future__ import annotations

from typing import Final

from lifecycle.authority.subjects import image_subjects
from lifecycle.jobs.kinds import Kind, register

LINEAGE: Final = register(
    Kind(
        "lineage",
        queue="match",
        label="Find base images",
        subjects=image_subjects,
        why_not_cancelled="It ends by itself: what it leaves out, nobody would look for again.",
        is_retried_forever=True,
    )
)
