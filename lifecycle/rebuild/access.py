"""Load waves and their jobs by the ids in a request, with access checks. All callers use these functions."""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import refuse_if
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.rebuild.queries import jobs_visible_to, waves_visible_to
from lifecycle.rebuild.refusals import why_not_steer


def wave_for(actor: User, wave_id: int) -> RebuildWave:
    """Return the wave if `actor` can see its base; raises NotFound for absent and hidden rows."""
    wave = waves_visible_to(actor).filter(pk=wave_id).first()
    if wave is None:
        raise NotFound("Rebuild wave not found, or you don't have access.")
    return wave


def job_for(actor: User, wave_id: int, job_id: int) -> RebuildJob:
    """Return one image's job of a wave if `actor` can see both; raises NotFound for absent and hidden rows."""
    job = jobs_visible_to(actor, wave_for(actor, wave_id)).filter(pk=job_id).first()
    if job is None:
        raise NotFound("Image not found in this wave, or you don't have access.")
    return job


def lock_wave(actor: User, wave_id: int) -> RebuildWave:
    """Return the wave, locked until the transaction ends, if `actor` can rebuild every repository in it.

    For a wave without jobs, `actor` must be able to rebuild the base's repository. Raises NotFound, NotPermitted.
    """
    wave = waves_visible_to(actor).select_for_update(of=("self",)).filter(pk=wave_id).first()
    if wave is None:
        raise NotFound("Rebuild wave not found, or you don't have access.")
    refuse_if(why_not_steer(actor, wave), verb=Verb.IMAGE_REBUILD.value)
    return wave
