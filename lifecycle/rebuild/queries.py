"""What is planned, what runs and what came of it."""

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
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage
from lifecycle.sbom.models import ImageInventory


def waves_visible_to(actor: User) -> QuerySet[RebuildWave]:
    """Return the waves whose base `actor` may see; page by -id."""
    rows = RebuildWave.objects.filter(repository__in=repositories_visible_to(actor))
    return rows.select_related("repository__team", "new_base", "old_base", "planned_by", "confirmed_by")


def jobs_visible_to(actor: User, wave: RebuildWave) -> QuerySet[RebuildJob]:
    """Return the jobs of a wave in repositories that `actor` may see, by level."""
    rows = RebuildJob.objects.filter(wave=wave, repository__in=repositories_visible_to(actor))
    return rows.select_related("repository__team", "old_image", "new_image", "recipe").order_by("level", "pk")


def job_counts(actor: User, wave_ids: Collection[int]) -> dict[int, dict[str, int]]:
    """Return {wave id: {state: how many of its jobs}}, of the jobs that `actor` may see; one query for any number."""
    rows = RebuildJob.objects.filter(wave__in=wave_ids, repository__in=repositories_visible_to(actor))
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for wave_id, state, count in rows.order_by().values_list("wave_id", "state").annotate(count=Count("pk")):
        counts[wave_id][state] = count
    return dict(counts)


def skipped_visible_to(actor: User, wave: RebuildWave) -> list[dict[str, str]]:
    """Return what was left out of a wave and why, of the repositories that `actor` may see now."""
    names = [row["repository"] for row in wave.skipped]
    visible = repositories_visible_to(actor).filter(registry=wave.repository.registry_id, name__in=names)
    shown = set(visible.values_list("name", flat=True))
    return [row for row in wave.skipped if row["repository"] in shown]


def log_of(job: RebuildJob) -> QuerySet[JobLogLine]:
    """Return the lines of every attempt at a job, oldest first; page by id."""
    runs = Job.objects.filter(kind=REBUILD.name, subject_id=job.pk)
    return JobLogLine.objects.filter(job__in=runs).order_by("pk")


def watches_of(repository: Repository) -> QuerySet[UpstreamWatch]:
    """Return the watched tags of a repository, each with `problem`: why its last move led to no plan, "" if it did.

    A crash is told without its words, which are for who runs this.
    """
    runs = Job.objects.filter(kind=PLAN.name, subject_id=OuterRef("pk")).order_by("-pk")
    said = runs.annotate(
        said=Case(
            When(~Q(state=Job.State.FAILED), then=Value("")),
            When(error_code="crashed", then=Value("It crashed; an admin finds it among the jobs.")),
            default=F("last_error"),
            output_field=TextField(),
        )
    )
    rows = UpstreamWatch.objects.filter(repository=repository).select_related("repository", "created_by")
    return rows.annotate(problem=Coalesce(Subquery(said.values("said")[:1]), Value(""), output_field=TextField()))


def current_recipe(repository: Repository) -> Recipe | None:
    """Return the highest revision of the repository's recipe, with its author."""
    return Recipe.objects.filter(repository=repository).select_related("author").order_by("-revision").first()


def base_by_layers(image: Image) -> Image | None:
    """Return the nearest known image whose layers are the first of `image`'s: the only kind it can be taken off."""
    edges = Derivation.objects.filter(derived=image, evidence__contains=[Derivation.Evidence.LAYERS])
    edge = edges.select_related("base").order_by("-base__layer_count", "-base_id").first()
    return edge.base if edge is not None else None


def name_in_registry(image: Image, registry: Registry) -> str | None:
    """Return a repository of this registry that holds an image, None when there is none."""
    held = RepositoryImage.objects.filter(image=image, removed_at=None, repository__registry=registry)
    return held.order_by("pk").values_list("repository__name", flat=True).first()


def brings_system_packages(image: Image, *, above: Image) -> bool:
    """Whether its SBOM says that layers of `image` above those of a base brought distribution packages."""
    brought = ImageInventory.objects.filter(image=image, layer_position__gte=above.layer_count)
    return brought.filter(inventory__inventory_packages__package__type__in=("deb", "apk", "rpm")).exists()


def slots_to_update(jobs: Sequence[RebuildJob], *, actor: User) -> dict[int, list[Slot]]:
    """Return {job id: the slots that hold an older state of what it made}, first environment first.

    Those are where a result could go: what its tag named before, be it the image that was renewed or one before that
    whose renewal nobody promoted. Only of environments that `actor` may see; the same queries for any number of jobs.
    """
    made = [job for job in jobs if job.state == RebuildJob.State.DONE]
    lines = line_images_of({job.repository_id: {job.tag} for job in made})
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
        for job in made
        if job.repository_id in lines
    }  # fmt: skip
