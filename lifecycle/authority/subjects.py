"""Subjects of jobs about images, for the job kinds that other packages register."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accounts.models import User
from lifecycle.authority.queries import repositories_open_to
from lifecycle.jobs.kinds import Subject
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image
from lifecycle.registry.queries import locations_of


def image_subjects(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    """Return the image that each job is about, by job id.

    The result contains only images that `reader` can see. An admin gets a short digest for the others.
    """
    ids = {job.subject_id for job in jobs}
    digests = dict(Image.objects.filter(pk__in=ids).values_list("pk", "digest"))
    locations = locations_of(ids, repositories_open_to(reader))
    subjects = {}
    for pk, digest in digests.items():
        if (location := locations.get(pk)) is not None:
            repository = location.repository
            subjects[pk] = Subject(location.label, "lifecycle:image", (repository.team.slug, repository.name, digest))
        elif reader.is_superuser:
            subjects[pk] = Subject(digest[:19])
    return {job.pk: subjects[job.subject_id] for job in jobs if job.subject_id in subjects}
