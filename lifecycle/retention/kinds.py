"""The job kinds of this package: delete the images of a plan, and put them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.retention.models import RetentionPlan
from lifecycle.retention.queries import plans_visible_to


def _plans(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    ids = {job.subject_id for job in jobs}
    visible = set(plans_visible_to(reader).filter(pk__in=ids).values_list("pk", flat=True))
    subjects = {}
    for plan in RetentionPlan.objects.filter(pk__in=ids).select_related("team", "repository"):
        words = f"{plan} of {plan.repository or plan.team.slug}"
        if plan.pk in visible:
            subjects[plan.pk] = Subject(words, "lifecycle:retention-plan", (plan.pk,))
        elif reader.is_superuser:
            subjects[plan.pk] = Subject(words)
    return {job.pk: subjects[job.subject_id] for job in jobs if job.subject_id in subjects}


DELETE_PLANNED: Final = register(
    Kind(
        "retention", queue="ingest", label="Delete by retention plan", subjects=_plans, is_cancellable=True,
        why_not_retried="Make a new retention plan.",
    )
)  # fmt: skip
RESTORE: Final = register(
    Kind("restore", queue="ingest", label="Restore deleted images", subjects=_plans, is_cancellable=True)
)
