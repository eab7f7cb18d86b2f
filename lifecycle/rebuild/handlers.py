"""The worker's part of a rebuild: renew one image under a tag of its own, have it scanned, then move the real tag."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Final

import orjson
from django.conf import settings

from lifecycle.core.errors import LifecycleError, NotFound
from lifecycle.core.types import Digest
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.models import Job, JobKind
from lifecycle.lineage.models import Derivation
from lifecycle.lineage.services import declare_base
from lifecycle.rebuild import contexts, planning, rebase, services
from lifecycle.rebuild.builders import buildah
from lifecycle.rebuild.models import RebuildJob, RebuildWave, UpstreamWatch
from lifecycle.rebuild.types import BuildRequest
from lifecycle.registry.client import RegistryClient
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, TagEvent
from lifecycle.registry.queries import place_to_pull, platforms_of

State = RebuildJob.State
_SCAN_POLL_S: Final = 2.0


@handler(JobKind.PLAN)
def plan(run: JobRun) -> None:
    """Look where a watched tag points, and propose a wave when it moved. Twice is safe: the digest is remembered."""
    watch = UpstreamWatch.objects.select_related("repository", "created_by").filter(pk=run.job.subject_id).first()
    if watch is not None:
        planning.propose(watch, actor=watch.created_by)


def _gave_up(job: Job) -> None:
    services.fail(job.subject_id, why=job.last_error or "The rebuild did not finish.")


@handler(JobKind.REBUILD, gave_up=_gave_up)
def rebuild(run: JobRun) -> None:
    """Renew one image. Coming twice, or after a kill anywhere, is safe: the result's tag is named by its inputs."""
    job = _job(run)
    if job.state not in services.OPEN_STATES:
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
    _move_tag(run, job, job.new_image)
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
    parents = _parents(job)
    bases = _bases(client, job, parents)
    node_id = _node_id(job, bases)
    with run.fenced():
        job = services.begin(job.pk, node_id=node_id)
    if job.state != State.BUILDING:
        return
    job = _job(run)
    if parents and not any(_has_changed(job, repository, image) for repository, image in parents.items()):
        with run.fenced():
            services.unchanged(job.pk, reason="No base of it changed.")
        return
    tag = f"rebuild-{node_id[7:23]}"
    held = client.resolve(job.repository.name, tag)
    method, reason = job.method, job.method_reason
    if held is not None:
        run.log("An earlier attempt built exactly this; its result is taken.")
        digest = held.digest
    else:
        digest, method, reason = _rebase_or_build(run, client, job, bases, tag)
    image = ingest_manifest(
        job.repository.registry_id, job.repository.name, digest.text, tag=tag, actor_name=run.job.actor.username,
        via=TagEvent.Via.REBUILD, alive=run.check,
    )  # fmt: skip
    platforms = Image.objects.filter(digest__in=[reference.partition("@")[2] for reference in bases.values()])
    with run.fenced():
        for base in platforms:
            if image.pk != base.pk and image.kind == base.kind == Image.Kind.MANIFEST:
                declare_base(image, base, actor=run.job.actor)
        services.built(job.pk, image, method=method, reason=reason)


def _parents(job: RebuildJob) -> dict[str, Image]:
    """Return what the images of this wave's repositories are now: {repository name: platform manifest}."""
    found = {job.wave.repository.name: _platform(job.wave.new_base)}
    for other in job.wave.jobs.select_related("repository", "new_image", "old_image").filter(level__lt=job.level):
        found[other.repository.name] = _platform(other.new_image or other.old_image)
    return found


def _platform(image: Image) -> Image:
    platforms = platforms_of(image)
    if not platforms:
        raise NotFound(f"{image.short_digest} holds no image of a platform.")
    return platforms[0]


def _bases(client: RegistryClient, job: RebuildJob, parents: dict[str, Image]) -> dict[str, str]:
    """Return {reference as the recipe writes it: repository@digest}; without a recipe, its recorded base's."""
    if job.recipe is None:
        edge = Derivation.objects.filter(derived=job.old_image).select_related("base").first()
        names = (
            Repository.objects.filter(repository_images__image=edge.base).values_list("name", flat=True) if edge else ()
        )
        return {name: f"{name}@{parents[name].digest}" for name in names if name in parents}
    found = {}
    for reference in job.recipe.base_references:
        name, wanted = services.split_reference(reference)
        if name in parents:
            found[reference] = f"{name}@{parents[name].digest}"
            continue
        held = client.resolve(name, wanted)
        if held is None:
            raise NotFound(f"The base {reference} is not in the registry.")
        top = Image.objects.filter(digest=held.digest.text).first()
        found[reference] = f"{name}@{_platform(top).digest if top is not None else held.digest}"
    return found


def _has_changed(job: RebuildJob, repository: str, image: Image) -> bool:
    """Whether this base, of those the job stands on, is another one than before."""
    platforms = [platform.pk for platform in platforms_of(job.old_image)]
    if repository == job.wave.repository.name and not job.parents.exists():
        return True
    stands = Derivation.objects.filter(derived__in=platforms, base__repository_images__repository__name=repository)
    return stands.exists() and not stands.filter(base=image).exists()


def _node_id(job: RebuildJob, bases: dict[str, str]) -> str:
    """Return the name of this build: the same inputs have the same, in whatever wave (docker-library's idea)."""
    inputs = [
        job.repository.name,
        [job.recipe.containerfile, job.recipe.context_digest, job.recipe.build_args] if job.recipe else [],
        _platform(job.old_image).platform,
        sorted(bases.values()),
        [job.wave_id, job.old_image.digest],  # apt and pip give other answers on another day
    ]
    return "sha256:" + hashlib.sha256(orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _rebase_or_build(
    run: JobRun, client: RegistryClient, job: RebuildJob, bases: dict[str, str], tag: str
) -> tuple[Digest, str, str]:
    problem = planning.rebase_problem(job.old_image, job.recipe)
    edge = Derivation.objects.filter(derived=job.old_image).select_related("base").first()
    place = place_to_pull(edge.base) if edge is not None else None
    if not problem and edge is not None and place is not None and len(bases) == 1:
        name, _, digest = next(iter(bases.values())).partition("@")
        app = rebase.load(client, job.repository.name, Digest.parse(job.old_image.digest))
        old = rebase.load(client, place[1], Digest.parse(edge.base.digest))
        new = rebase.load(client, name, Digest.parse(digest))
        decision = rebase.decide(client, app, old, new)
        run.check()
        if decision.is_safe:
            run.log("Rebasing: its own layers go onto the new base as they are.")
            result = rebase.merge(app, old, new, base_name=f"{job.repository.registry.host}/{name}")
            return rebase.push(client, result, app, new, tag=tag), RebuildJob.Method.REBASE, job.method_reason
        problem = " ".join(decision.reasons)
    problem = problem or "Its base is not known."
    if job.recipe is None:
        raise NotFound(f"It cannot be rebased, and has no recipe. {problem}")
    run.log(f"Building from the recipe, not rebasing: {problem}")
    return _build(run, client, job, bases, tag), RebuildJob.Method.BUILD, problem


def _build(run: JobRun, client: RegistryClient, job: RebuildJob, bases: dict[str, str], tag: str) -> Digest:
    recipe = job.recipe
    if recipe is None:
        raise NotFound("There is no recipe.")

    def check() -> None:
        run.check()
        if RebuildWave.objects.filter(pk=job.wave_id, state=RebuildWave.State.CANCELLED).exists():
            raise LifecycleError("The rebuild was cancelled.", code="cancelled")

    first = next(iter(bases.values()), "")
    annotations = {}
    if first:
        name, _, digest = first.partition("@")
        annotations = {rebase.BASE_NAME: f"{job.repository.registry.host}/{name}", rebase.BASE_DIGEST: digest}
    with tempfile.TemporaryDirectory(prefix="gd-context-", dir=settings.SCRATCH or None) as scratch:
        context = None
        if recipe.context_digest:
            context = Path(scratch) / "context"
            contexts.unpack(client, job.repository.name, recipe.context_digest, context)
        request = BuildRequest(
            containerfile=recipe.containerfile, context=context, build_args=recipe.build_args, bases=bases,
            repository=job.repository.name, tag=tag, annotations=annotations,
        )  # fmt: skip
        result = buildah.build(request, client, log=run.log, check=check)
    return Digest.parse(result.digest)


def _move_tag(run: JobRun, job: RebuildJob, image: Image) -> None:
    """Let the tag that named the old image name the new one, unless somebody moved it meanwhile."""
    client = client_for(job.repository.registry)
    name = job.repository.name
    held = client.resolve(name, job.tag)
    if held is not None and held.digest.text not in (job.old_image.digest, image.digest):
        run.log(f"The tag {job.tag} was moved by somebody else meanwhile; it stays.")
        return
    content = client.get_manifest(name, image.digest)
    client.put_manifest(name, job.tag, content.content, content.media_type)
    ingest_manifest(
        job.repository.registry_id, name, image.digest, tag=job.tag, actor_name=run.job.actor.username,
        via=TagEvent.Via.REBUILD, alive=run.check,
    )  # fmt: skip
