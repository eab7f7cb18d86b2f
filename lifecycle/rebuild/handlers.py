"""The worker's part of a rebuild: renew one image under a tag of its own, have it scanned, then move the real tag."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

import orjson
from django.db.models import Case, Value, When
from django.utils.crypto import salted_hmac

from accounts.models import User
from lifecycle import events
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.core.types import Digest
from lifecycle.events import subscribe
from lifecycle.evidence.findings import is_matching
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.lineage.services import declare_base
from lifecycle.oci.client import RegistryClient
from lifecycle.rebuild import contexts, estimates, planning, queries, rebase, services
from lifecycle.rebuild.builders import buildah
from lifecycle.rebuild.containerfile import split_reference
from lifecycle.rebuild.documents import load
from lifecycle.rebuild.graph import tags_of
from lifecycle.rebuild.kinds import PLAN, REBUILD
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.rebuild.types import BuildRequest, WaveCancelled
from lifecycle.registry.clients import client_for
from lifecycle.registry.constants import OWN_TAGS
from lifecycle.registry.models import Image, RepositoryImage, Tag, TagEvent
from lifecycle.registry.platforms import platforms_of

State = RebuildJob.State
_SCAN_POLL_S: Final = 2.0
_PLAN_WAITS: Final = timedelta(seconds=60)  # for the scan of a new base; then it is planned, and estimated later


@handler(PLAN)
def plan(run: JobRun) -> None:
    """Look where a watched tag points, and propose a wave when it moved. Twice is safe: the digest is remembered."""
    watch = UpstreamWatch.objects.select_related("repository", "created_by").filter(pk=run.job.subject_id).first()
    if watch is None:
        return
    tag = Tag.objects.select_related("image").filter(repository=watch.repository, name=watch.tag).first()
    if tag is not None and tag.image is not None and tag.image.digest != watch.last_digest:
        waited = clock.now() - run.job.created_at
        if waited < _PLAN_WAITS and not _is_known(platforms_of(tag.image)):
            raise Postponed("The new base is being scanned; the plan says what it would fix.", seconds=_SCAN_POLL_S)
    planning.propose(watch, actor=watch.created_by)


def _is_known(images: list[Image]) -> bool:
    """Whether all that can be known of these images' findings is known: scanned and matched, or not to be scanned."""
    if not all(image.scanned_at or image.scan_problem for image in images):
        return False
    return not is_matching([image.pk for image in images])


def _gave_up(job: Job) -> None:
    services.fail(job.subject_id, why=job.last_error or "The rebuild did not finish.")


@handler(REBUILD, gave_up=_gave_up)
def rebuild(run: JobRun) -> None:
    """Renew one image. Coming twice, or after a kill anywhere, is safe: the result's tag is named by its inputs."""
    job = _job(run)
    if job.state not in services.OPEN_STATES:
        return
    with run.fenced():
        if services.stop_if_cancelled(job.pk):
            return
    services.require_right(job, run.job.actor)
    if job.state in (State.WAITING, State.BUILDING):
        _make(run, job)
        job = _job(run)
    if job.state != State.SCANNING or job.new_image is None:
        return
    if job.new_image.scanned_at is None:
        if job.new_image.scan_problem:
            with run.fenced():
                services.fail(job.pk, why=f"The result could not be scanned: {job.new_image.scan_problem}")
            return
        raise Postponed("The result is being scanned.", seconds=_SCAN_POLL_S)
    if is_matching([job.new_image.pk]):  # else it would look better than it is
        raise Postponed("The packages of the result are being matched.", seconds=_SCAN_POLL_S)
    if not _move_tag(run, job, job.new_image):
        return
    with run.fenced():
        services.finish(job.pk)


def _job(run: JobRun) -> RebuildJob:
    rows = RebuildJob.objects.select_related(
        "wave__new_base", "wave__repository", "repository__registry", "repository__team", "recipe", "old_image",
        "new_image",
    )  # fmt: skip
    return rows.get(pk=run.job.subject_id)


def _make(run: JobRun, job: RebuildJob) -> None:
    client = client_for(job.repository.registry)
    # What is in force when the build begins, if that is newer than the plan; a second attempt keeps to the first's.
    recipe = job.recipe if job.state == State.BUILDING else queries.current_recipe(job.repository)
    bases = _bases(run, client, job, recipe)
    node_id = _node_id(job, recipe, bases)
    with run.fenced():
        job = services.begin(job.pk, node_id=node_id, recipe=recipe)
    if job.state != State.BUILDING:
        return
    job = _job(run)
    if _is_overtaken(run, client, job):
        return
    if not _has_changed(job, bases):
        with run.fenced():
            services.unchanged(job.pk, reason="No base of it changed.")
        return
    tag = f"{OWN_TAGS[0]}{_secret(node_id)}"
    held = client.resolve(job.repository.name, tag)
    method, reason = job.method, job.method_reason
    if held is not None:
        run.log("An earlier attempt built exactly this; its result is taken.")
        digest = held.digest
    else:
        digest, method, reason = _rebase_or_build(run, client, job, bases, tag)
    run.check()
    image = ingest_manifest(
        job.repository.registry_id, job.repository.name, digest.text, tag=tag, actor_name=run.job.actor.username,
        via=TagEvent.Via.REBUILD, alive=run.check,
    )  # fmt: skip
    used = bases if method == RebuildJob.Method.REBASE or (recipe and recipe.base_references) else {}
    platforms = Image.objects.filter(digest__in=[reference.partition("@")[2] for reference in used.values()])
    with run.fenced():
        for base in platforms:
            if image.pk != base.pk and image.kind == base.kind == Image.Kind.MANIFEST:
                declare_base(image, base, actor=run.job.actor)
        services.built(job.pk, image, method=method, reason=reason)


def _secret(node_id: str) -> str:
    """Return the part of a result's tag that nobody can know before we push it: who could, could lay one there."""
    return salted_hmac("rebuild.result", node_id, algorithm="sha256").hexdigest()[:16]


def _platform(image: Image, like: Image) -> Image:
    """Return the platform manifest of `image` for the platform that `like` is for; raises NotFound."""
    platforms = platforms_of(image)
    wanted = (platforms_of(like) or [like])[0].platform
    found = [platform for platform in platforms if platform.platform == wanted] or platforms[: len(platforms) == 1]
    if not found:
        raise NotFound(f"{image.short_digest} holds no image for {wanted or 'any platform'}.")
    return found[0]


def _bases(run: JobRun, client: RegistryClient, job: RebuildJob, recipe: Recipe | None) -> dict[str, str]:
    """Return {reference as the recipe writes it: repository@digest}; without a recipe, its recorded base's.

    What this wave renews is taken from it, so that a base that moves again meanwhile does not mix into it. A base is
    only given to a recipe whose author may see it.
    """
    parents = {(parent.repository.name, parent.tag): parent.new_image or parent.old_image
               for parent in job.parents.select_related("repository", "new_image", "old_image")}  # fmt: skip
    base = job.wave.repository
    if recipe is None or not recipe.base_references:
        return _recorded_base(job, run.job.actor)
    tags = tags_of(base, job.wave.new_base)
    found = {}
    for reference in recipe.base_references:
        name, wanted = split_reference(reference)
        image = parents.get((name, wanted))
        if image is None and name == base.name and wanted in tags:
            image = job.wave.new_base
        if image is None:
            held = client.resolve(name, wanted)
            image = Image.objects.filter(digest=held.digest.text).first() if held is not None else None
        author = recipe.author if recipe.author.is_active else run.job.actor
        visible = repositories_visible_to(author).filter(registry=job.repository.registry_id, name=name)
        if image is None or not visible.exists():
            raise NotFound(f"The base {reference} is not in the registry, or its recipe's author may not see it.")
        found[reference] = f"{name}@{_platform(image, job.old_image).digest}"
    return found


def _recorded_base(job: RebuildJob, actor: User) -> dict[str, str]:
    """Return the image in this wave that the recorded base of an image without recipe has become, {} for none.

    Outside of the wave only what `actor` may see is looked at, the family's own team first: whoever once held the same
    base may have put anything under that tag since.
    """
    old = queries.base_by_layers((platforms_of(job.old_image) or [job.old_image])[0])
    if old is None:
        return {}
    holders = set(RepositoryImage.objects.filter(image=old).values_list("repository_id", flat=True))
    for parent in job.parents.select_related("repository", "new_image", "old_image").order_by("-level"):
        if parent.repository_id in holders:
            name, image = parent.repository.name, parent.new_image or parent.old_image
            return {name: f"{name}@{_platform(image, job.old_image).digest}"}
    if job.wave.repository_id in holders:
        name = job.wave.repository.name
        return {name: f"{name}@{_platform(job.wave.new_base, job.old_image).digest}"}
    # Its base was renewed before this wave, which only passes by it.
    places = repositories_visible_to(actor).filter(pk__in=holders, registry=job.repository.registry_id, source=None)
    moved = Tag.objects.filter(repository__in=places, image__isnull=False, events__new_image=old).exclude(image=old)
    own_first = Case(When(repository__team=job.repository.team_id, then=Value(0)), default=Value(1))
    tag = moved.select_related("repository", "image").order_by(own_first, "repository__name", "pk").first()
    if tag is None or tag.image is None:
        return {}
    return {tag.repository.name: f"{tag.repository.name}@{_platform(tag.image, job.old_image).digest}"}


def _has_changed(job: RebuildJob, bases: dict[str, str]) -> bool:
    """Whether a base is another one than before: the wave's own, a renewed parent's, or one renewed before the wave."""
    parents = list(job.parents.all())
    new = {image.digest for image in platforms_of(job.wave.new_base)}
    stands_on_new = any(reference.partition("@")[2] in new for reference in bases.values())
    return not parents or stands_on_new or any(services.is_renewed(parent) for parent in parents)


def _node_id(job: RebuildJob, recipe: Recipe | None, bases: dict[str, str]) -> str:
    """Return the name of this build: the same inputs have the same, in whatever attempt (docker-library's idea)."""
    inputs = [
        job.repository.name,
        [recipe.containerfile, recipe.context_digest, recipe.build_args] if recipe else [],
        (platforms_of(job.old_image) or [job.old_image])[0].platform,
        sorted(bases.values()),
        [job.wave_id, job.old_image.digest],  # apt and pip give other answers on another day
    ]
    return "sha256:" + hashlib.sha256(orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _is_overtaken(run: JobRun, client: RegistryClient, job: RebuildJob) -> bool:
    """Whether somebody else moved the tag since the plan: it stays, and what stands on it goes on from there."""
    held = client.resolve(job.repository.name, job.tag)
    if held is None:
        raise NotFound(f"The tag {job.tag} was deleted meanwhile.")
    if services.may_replace(job, held.digest.text):
        return False
    reason = f"The tag {job.tag} was moved by somebody else meanwhile; it stays."
    run.log(reason)
    image = ingest_manifest(
        job.repository.registry_id, job.repository.name, held.digest.text, tag=job.tag, alive=run.check
    )
    with run.fenced():
        services.unchanged(job.pk, reason=reason, image=image)
    return True


def _rebase_or_build(
    run: JobRun, client: RegistryClient, job: RebuildJob, bases: dict[str, str], tag: str
) -> tuple[Digest, str, str]:
    problem = planning.rebase_problem(job.old_image, job.recipe)
    before = queries.base_by_layers(job.old_image)
    place = queries.name_in_registry(before, job.repository.registry) if before is not None else None
    if not problem and before is not None and place is not None and len(bases) == 1:
        name, _, digest = next(iter(bases.values())).partition("@")
        try:
            app = load(client, job.repository.name, Digest.parse(job.old_image.digest))
            old = load(client, place, Digest.parse(before.digest))
            new = load(client, name, Digest.parse(digest))
        except Malformed as error:
            problem = f"The image or its base cannot be read. {error.message}"
        else:
            decision = rebase.decide(client, app, old, new)
            run.check()
            if decision.is_safe:
                reason = "Its own layers went onto the new base as they are."
                run.log("Rebasing: its own layers go onto the new base as they are.")
                result = rebase.merge(app, old, new, base_name=f"{job.repository.registry.host}/{name}")
                return rebase.push(client, result, app, new, tag=tag), RebuildJob.Method.REBASE, reason
            problem = " ".join(decision.reasons)
    problem = problem or "Its base is not known."
    if job.recipe is None:
        raise NotFound(f"It cannot be rebased, and has no recipe. {problem}")
    run.log(f"Building from recipe {job.recipe.revision}, not rebasing: {problem}")
    return _build(run, client, job, bases, tag), RebuildJob.Method.BUILD, problem


def _build(run: JobRun, client: RegistryClient, job: RebuildJob, bases: dict[str, str], tag: str) -> Digest:
    recipe = job.recipe
    if recipe is None:
        raise NotFound("There is no recipe.")

    def check() -> None:
        run.check()
        if RebuildWave.objects.filter(pk=job.wave_id, state=RebuildWave.State.CANCELLED).exists():
            raise WaveCancelled("The wave was cancelled.")

    first = next(iter(bases.values()), "")
    annotations = {}
    if first:
        name, _, digest = first.partition("@")
        annotations = {rebase.BASE_NAME: f"{job.repository.registry.host}/{name}", rebase.BASE_DIGEST: digest}
    with scratch_folder("context") as work:
        context = None
        if recipe.context_digest:
            context = work / "context"
            contexts.unpack(client, job.repository.name, recipe.context_digest, context)
        request = BuildRequest(
            containerfile=recipe.containerfile, context=context, build_args=recipe.build_args, bases=bases,
            repository=job.repository.name, tag=tag, annotations=annotations,
        )  # fmt: skip
        result = buildah.build(request, client, log=run.log, check=check)
    return Digest.parse(result.digest)


def _move_tag(run: JobRun, job: RebuildJob, image: Image) -> bool:
    """Let the tag that named the old image name the new one, and return whether it does now.

    A tag that somebody else moved meanwhile stays, and a wave that was cancelled meanwhile moves none.
    """
    client = client_for(job.repository.registry)
    name = job.repository.name
    if _is_overtaken(run, client, job):
        return False
    with run.fenced():
        if services.stop_if_cancelled(job.pk):
            return False
    content = client.get_manifest(name, image.digest)
    run.check()
    client.put_manifest(name, job.tag, content.content, content.media_type)
    ingest_manifest(
        job.repository.registry_id, name, image.digest, tag=job.tag, actor_name=run.job.actor.username,
        via=TagEvent.Via.REBUILD, alive=run.check,
    )  # fmt: skip
    return True


@every(60, "rebuild_waves")
def resume_waves() -> None:
    """Go on with running waves that nobody works at."""
    services.resume_waves()


@every(5, "rebuild_estimates")
def estimate_open() -> None:
    """Estimate the waves whose new base was not scanned when they were planned."""
    estimates.estimate_open()


@subscribe(events.TagMoved)
def plan_for_watches(event: events.TagMoved) -> None:
    """Plan a rebuild wave for every watch of a tag that was created or moved."""
    if event.image_id is not None:
        services.queue_plans(event.repository_id, event.tag)
