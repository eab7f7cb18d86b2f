"""The job kind of this package: find the base images of one image."""

from __future__ import annotations

from typing import Final

from lifecycle.authority.subjects import image_subjects
from lifecycle.jobs.kinds import Kind, register

LINEAGE: Final = register(
    Kind(
        "lineage",
        queue="match",
        label="Find base image",
        subjects=image_subjects,
        why_not_cancelled="This job cannot be cancelled, because its missing results would not be found later.",
        is_retried_forever=True,
    )
)
