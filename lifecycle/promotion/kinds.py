"""The job kind of this package: copy an approved image into its environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import promotions_visible_to


def _subjects(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    ids = {job.subject_id for job in jobs}
    visible = set(promotions_visible_to(reader).filter(pk__in=ids).values_list("pk", flat=True))
    subjects = {}
    for request in PromotionRequest.objects.filter(pk__in=ids).select_related("repository", "environment"):
        words = f"{request.repository.name}:{request.tag} to {request.environment.slug}"
        if request.pk in visible:
            subjects[request.pk] = Subject(words, "lifecycle:promotion", (request.pk,))
        elif reader.is_superuser:
            subjects[request.pk] = Subject(words)
    return {job.pk: subjects[job.subject_id] for job in jobs if job.subject_id in subjects}


PROMOTE: Final = register(
    Kind(
        "promote",
        queue="promote",
        label="Run promotion",
        subjects=_subjects,
        why_not_cancelled="A running copy cannot be cancelled.",
        why_not_retried="Run the promotion again on its page, or request it again.",
    )
)
