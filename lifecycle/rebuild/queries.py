"""What is planned, what runs and what came of it."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.promotion.models import Environment
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe
from lifecycle.registry.models import Image, Repository, RepositoryImage


def waves_visible_to(actor: User) -> QuerySet[RebuildWave]:
    """Return the waves whose base `actor` may see; page by -id."""
    rows = RebuildWave.objects.filter(repository__in=repositories_visible_to(actor))
    return rows.select_related("repository__team", "new_base", "old_base", "planned_by", "confirmed_by")


def jobs_visible_to(actor: User, wave: RebuildWave) -> QuerySet[RebuildJob]:
    """Return the jobs of a wave in repositories that `actor` may see, by level."""
    rows = RebuildJob.objects.filter(wave=wave, repository__in=repositories_visible_to(actor))
    return rows.select_related("repository__team", "old_image", "new_image", "recipe").order_by("level", "pk")


def recipe_in_force(repository: Repository) -> Recipe | None:
    """Return the highest revision of the repository's recipe."""
    return Recipe.objects.filter(repository=repository).order_by("-revision").first()


def places_of(image: Image) -> QuerySet[Repository]:
    """Return the families' own repositories that hold an image; targets of promotions are left out."""
    held = RepositoryImage.objects.filter(image=image, removed_at=None, repository__source=None)
    return Repository.objects.filter(pk__in=held.values("repository_id"))


def promotion_candidates(job: RebuildJob) -> QuerySet[Environment]:
    """Return the environments that hold the old image now, so where the new one could be promoted to."""
    held = RepositoryImage.objects.filter(
        image=job.old_image, removed_at=None, repository__source=job.repository, repository__environment__isnull=False
    )
    return Environment.objects.filter(pk__in=held.values("repository__environment_id")).order_by("position")
