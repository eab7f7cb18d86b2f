"""The job kinds of this package: copy an approved image into its environment, ask a service whether it works,
and run a release set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from accounts.models import User
from lifecycle.jobs.kinds import Kind, Subject, register
from lifecycle.jobs.models import Job
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
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


def _sets(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    ids = {job.subject_id for job in jobs}
    members = PromotionRequest.objects.filter(release_set__in=ids)
    hidden = set(
        members.exclude(pk__in=promotions_visible_to(reader).values("pk")).values_list("release_set", flat=True)
    )
    subjects = {}
    for row in ReleaseSet.objects.filter(pk__in=ids).select_related("environment"):
        words = f"{row}: {row.size} repositories to {row.environment.slug}"
        if row.pk not in hidden:
            subjects[row.pk] = Subject(words, "lifecycle:release-set", (row.pk,))
        elif reader.is_superuser:
            subjects[row.pk] = Subject(words)
    return {job.pk: subjects[job.subject_id] for job in jobs if job.subject_id in subjects}


CHECK: Final = register(
    Kind(
        "check",
        queue="promote",
        label="Verify promotion",
        subjects=_subjects,
        why_not_cancelled="Wait for the answer, or roll back.",
        why_not_retried="Request the promotion again.",
    )
)
RELEASE: Final = register(
    Kind(
        "release",
        queue="promote",
        label="Run release set",
        subjects=_sets,
        why_not_cancelled="A running release set cannot be cancelled.",
        why_not_retried="Run the release set again on its page, or request it again.",
    )
)
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
