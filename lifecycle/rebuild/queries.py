"""Waves, jobs, recipes and watches, and the bases of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from django.db.models import Case, Count, F, OuterRef, Q, QuerySet, Subquery, TextField, Value, When
from django.db.models.functions import Coalesce

from accounts.models import User
from lifecycle.authority.queries import environments_visible_to, repositories_visible_to
from lifecycle.environments.models import Slot
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.lineage.models import Derivation
from lifecycle.rebuild.graph import line_images_of
from lifecycle.rebuild.kinds import PLAN, REBUILD
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage
from lifecycle.sbom.models import ImageInventory


def waves_visible_to(actor: User) -> QuerySet[RebuildWave]:
    """Return the waves whose base `actor` can see; page by -id."""
    return with_joins(RebuildWave.objects.filter(repository__in=repositories_visible_to(actor)))


def with_joins(rows: QuerySet[RebuildWave]) -> QuerySet[RebuildWave]:
    """Return `rows` with the joins that a list and an answer need."""
    return rows.select_related("repository__team", "new_base", "old_base", "planned_by", "confirmed_by")


def jobs_visible_to(actor: User, wave: RebuildWave) -> QuerySet[RebuildJob]:
    """Return the jobs of a wave in repositories that `actor` can see, by level."""
    rows = RebuildJob.objects.filter(wave=wave, repository__in=repositories_visible_to(actor))
    return rows.select_related("repository__team", "old_image", "new_image", "recipe").order_by("level", "pk")


def job_counts(actor: User, wave_ids: Collection[int]) -> dict[int, dict[str, int]]:
    """Return {wave id: {state: number of jobs}}, of the jobs that `actor` can see, in one query."""
    rows = RebuildJob.objects.filter(wave__in=wave_ids, repository__in=repositories_visible_to(actor))
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for wave_id, state, count in rows.order_by().values_list("wave_id", "state").annotate(count=Count("pk")):
        counts[wave_id][state] = count
    return dict(counts)


def skipped_visible_to(actor: User, wave: RebuildWave) -> list[dict[str, str]]:
    """Return the skipped images of a wave with the reasons, of the repositories that `actor` can see now."""
    names = [row["repository"] for row in wave.skipped]
    visible = repositories_visible_to(actor).filter(registry=wave.repository.registry_id, name__in=names)
    shown = set(visible.values_list("name", flat=True))
    return [row for row in wave.skipped if row["repository"] in shown]


def log_of(job: RebuildJob) -> QuerySet[JobLogLine]:
    """Return the lines of every attempt at a job, oldest first; page by id."""
    runs = Job.objects.filter(kind=REBUILD.name, subject_id=job.pk)
    return JobLogLine.objects.filter(job__in=runs).order_by("pk")


def watches_of(repository: Repository) -> QuerySet[UpstreamWatch]:
    """Return the watched tags of a repository, each with `problem`: why its last move created no plan, else "".

    The message of a crash is not included, because only operators need it.
    """
    runs = Job.objects.filter(kind=PLAN.name, subject_id=OuterRef("pk")).order_by("-pk")
    problems = runs.annotate(
        problem_text=Case(
            When(~Q(state=Job.State.FAILED), then=Value("")),
            When(error_code="crashed", then=Value("Planning crashed. An admin can find the error in the jobs list.")),
            default=F("last_error"),
            output_field=TextField(),
        )
    )
    rows = UpstreamWatch.objects.filter(repository=repository).select_related("repository", "created_by")
    return rows.annotate(
        problem=Coalesce(Subquery(problems.values("problem_text")[:1]), Value(""), output_field=TextField())
    )


def current_recipe(repository: Repository) -> Recipe | None:
    """Return the highest revision of the repository's recipe, with its author."""
    return Recipe.objects.filter(repository=repository).select_related("author").order_by("-revision").first()


def builder_permit_of(repository: Repository) -> BuilderPermit | None:
    """Return the permit that turns the embedded builder on for a repository, its own or its team's; None when off."""
    rows = BuilderPermit.objects.filter(Q(repository=repository) | Q(team=repository.team_id))
    return (
        rows.select_related("team", "repository", "turned_on_by").order_by(F("team_id").asc(nulls_first=True)).first()
    )


def repositories_with_builder(repository_ids: Collection[int]) -> set[int]:
    """Return those of some repositories for which the embedded builder is on, in one query."""
    is_on = Q(builder_permit__isnull=False) | Q(team__builder_permit__isnull=False)
    return set(Repository.objects.filter(is_on, pk__in=repository_ids).values_list("pk", flat=True))


def base_by_layers(image: Image) -> Image | None:
    """Return the nearest known base whose layers are the first layers of `image`, as a rebase requires."""
    edges = Derivation.objects.filter(derived=image, evidence__contains=[Derivation.Evidence.LAYERS])
    edge = edges.select_related("base").order_by("-base__layer_count", "-base_id").first()
    return edge.base if edge is not None else None


def name_in_registry(image: Image, registry: Registry) -> str | None:
    """Return a repository of this registry that contains an image, or None."""
    rows = RepositoryImage.objects.filter(image=image, removed_at=None, repository__registry=registry)
    return rows.order_by("pk").values_list("repository__name", flat=True).first()


def brings_system_packages(image: Image, *, above: Image) -> bool:
    """Return whether the SBOM of `image` has distribution packages in layers above those of the base `above`."""
    own_rows = ImageInventory.objects.filter(image=image, layer_position__gte=above.layer_count)
    return own_rows.filter(inventory__inventory_packages__package__type__in=("deb", "apk", "rpm")).exists()


def slots_to_update(jobs: Sequence[RebuildJob], *, actor: User) -> dict[int, list[Slot]]:
    """Return {job id: slots that have an older image of the same tag}, first environment first.

    The result of the job could be promoted there. An older image is any image that the tag pointed at before: the
    rebuilt image, or an earlier one whose rebuild was never promoted. Only environments that `actor` can see; the
    number of queries does not depend on the number of jobs.
    """
    done = [job for job in jobs if job.state == RebuildJob.State.DONE]
    lines = line_images_of({job.repository_id: {job.tag} for job in done})
    rows = Slot.objects.filter(
        repository__in=lines, image__isnull=False, environment__in=environments_visible_to(actor)
    )
    slots = list(rows.select_related("environment__team").order_by("environment__position", "pk"))
    return {
        job.pk: [
            slot for slot in slots
            if slot.repository_id == job.repository_id
            and slot.image_id in lines[job.repository_id] | {job.old_image_id}
            and slot.image_id != job.new_image_id
        ]
        for job in done
        if job.repository_id in lines
    }  # fmt: skip
