"""The only way from an id in a request to a wave's row: found and allowed, or not found."""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.authority.rights import require
from lifecycle.core.errors import NotFound
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.rebuild.queries import jobs_visible_to, waves_visible_to
from lifecycle.registry.models import Repository


def wave_for(actor: User, wave_id: int) -> RebuildWave:
    """Return the wave if `actor` may see its base; raises NotFound for absent and hidden alike."""
    wave = waves_visible_to(actor).filter(pk=wave_id).first()
    if wave is None:
        raise NotFound("There is no such rebuild wave, or you may not see it.")
    return wave


def job_for(actor: User, wave_id: int, job_id: int) -> RebuildJob:
    """Return one image's job of a wave if `actor` may see both; raises NotFound for absent and hidden alike."""
    job = jobs_visible_to(actor, wave_for(actor, wave_id)).filter(pk=job_id).first()
    if job is None:
        raise NotFound("There is no such image in this wave, or you may not see it.")
    return job


def lock_wave(actor: User, wave_id: int) -> RebuildWave:
    """Return the wave, locked until the transaction ends, if `actor` may rebuild every repository it touches.

    A wave without jobs asks for the right over the base's repository. Raises NotFound, NotPermitted.
    """
    wave = waves_visible_to(actor).select_for_update(of=("self",)).filter(pk=wave_id).first()
    if wave is None:
        raise NotFound("There is no such rebuild wave, or you may not see it.")
    touched = Repository.objects.filter(rebuild_jobs__wave=wave).select_related("team").distinct()
    held = repositories_visible_to(actor, Verb.IMAGE_REBUILD)
    # One query for a wave of thousands; what is missing is looked at by itself, for the reason.
    missing = list(touched.exclude(pk__in=held.values("pk"))) if touched.exists() else [wave.repository]
    for repository in missing:
        require(actor, Verb.IMAGE_REBUILD, repository=repository)
    return wave
