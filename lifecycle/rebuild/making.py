"""Make one image on its new bases: rebase it where that is safe, else build it from its recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from django.utils.crypto import salted_hmac

from lifecycle.core.errors import Malformed, NotFound, RegistryRefused
from lifecycle.core.reasons import refuse_if
from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.core.types import Digest
from lifecycle.jobs.handlers import JobRun
from lifecycle.oci.client import RegistryClient
from lifecycle.rebuild import contexts, documents, methods, queries, rebase
from lifecycle.rebuild.bases import first_platform
from lifecycle.rebuild.builders import buildah
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe
from lifecycle.rebuild.refusals import why_not_build
from lifecycle.rebuild.types import BuilderOff, BuildRequest, WaveCancelled
from lifecycle.registry.constants import OWN_TAGS

Method = RebuildJob.Method


@dataclass(frozen=True, slots=True)
class Made:
    """A result in the image's own repository, with the method that made it and the reason for that method."""

    digest: Digest
    method: str
    reason: str


def node_id_of(job: RebuildJob, recipe: Recipe | None, bases: Mapping[str, str]) -> str:
    """Return the name of this build. Equal inputs give equal names, in every attempt (like docker-library)."""
    inputs = [
        job.repository.name,
        [recipe.containerfile, recipe.context_digest, recipe.build_args] if recipe else [],
        first_platform(job.old_image).platform,
        sorted(bases.values()),
        [job.wave_id, job.old_image.digest],  # apt and pip can return other packages on another day
    ]
    return "sha256:" + hashlib.sha256(orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS)).hexdigest()


def result_tag(node_id: str) -> str:
    """Return the tag of a build's result. It is secret, so that no user can push another image there first."""
    secret = salted_hmac("rebuild.result", node_id, algorithm="sha256").hexdigest()
    return f"{OWN_TAGS[0]}{secret[:16]}"


def make_image(run: JobRun, client: RegistryClient, job: RebuildJob, bases: Mapping[str, str], *, tag: str) -> Made:
    """Push the result under its own `tag`, and return it. The result of an earlier attempt is reused.

    Raises NotFound when the image cannot be rebased or built, BuilderOff, BuildFailed, WaveCancelled, LeaseLost.
    """
    earlier = client.resolve(job.repository.name, tag)
    if earlier is not None:
        run.log("Using the result of an earlier attempt with the same inputs.")
        return Made(earlier.digest, job.method, job.method_reason)
    rebased, problem = _rebase(run, client, job, bases, tag)
    if rebased is not None:
        return Made(rebased, Method.REBASE, "Its own layers were put onto the new base unchanged.")
    if job.recipe is None:
        raise NotFound(f"The image cannot be rebased and has no recipe. {problem}")
    if off := why_not_build(job.repository):
        raise BuilderOff(f"The image cannot be rebased: {problem} {off}")
    run.log(f"Building from recipe {job.recipe.revision}. The image cannot be rebased: {problem}")
    return Made(_build(run, client, job, job.recipe, bases, tag=tag), Method.BUILD, problem)


def _rebase(
    run: JobRun, client: RegistryClient, job: RebuildJob, bases: Mapping[str, str], tag: str
) -> tuple[Digest | None, str]:
    """Return (digest of the rebased image, ""), or (None, the reason why it cannot be rebased)."""
    if problem := methods.rebase_problem(job.old_image, job.recipe):
        return None, problem
    old_base = queries.base_by_layers(job.old_image)
    old_name = queries.name_in_registry(old_base, job.repository.registry) if old_base is not None else None
    if old_base is None or old_name is None or len(bases) != 1:
        return None, "Its base is unknown."
    name, _, digest = next(iter(bases.values())).partition("@")
    try:
        app = documents.load(client, job.repository.name, Digest.parse(job.old_image.digest))
        old = documents.load(client, old_name, Digest.parse(old_base.digest))
        new = documents.load(client, name, Digest.parse(digest))
        decision = rebase.decide(client, app, old, new)
    except (Malformed, RegistryRefused) as error:  # for example, the registry no longer has the old base
        return None, f"The image or its base cannot be read. {error.message}"
    run.check()
    if not decision.is_safe:
        return None, " ".join(decision.reasons)
    run.log("Rebasing: its own layers are put onto the new base unchanged.")
    result = rebase.merge(app, old, new, base_name=f"{job.repository.registry.host}/{name}")
    return rebase.push(client, result, app, new, tag=tag), ""


def _build(
    run: JobRun, client: RegistryClient, job: RebuildJob, recipe: Recipe, bases: Mapping[str, str], *, tag: str
) -> Digest:
    def check() -> None:
        run.check()
        if RebuildWave.objects.filter(pk=job.wave_id, state=RebuildWave.State.CANCELLED).exists():
            raise WaveCancelled("The wave was cancelled.")
        refuse_if(why_not_build(job.repository))  # an admin can turn the builder off during a build

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
