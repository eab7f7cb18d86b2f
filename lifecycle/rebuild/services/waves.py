"""Confirm, cancel, retry and resume rebuild waves."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Exists, OuterRef

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import RebuildSuperseded
from lifecycle.authority.rights import require
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition
from lifecycle.core.patterns import matches
from lifecycle.core.reasons import refuse_if
from lifecycle.rebuild.access import lock_wave
from lifecycle.rebuild.graph import tags_of
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.rebuild.refusals import why_not_confirm
from lifecycle.rebuild.services.progress import OPEN_STATES, advance, move, move_wave, open_runs, queue_run, record
from lifecycle.registry.models import Image, Tag
from lifecycle.sbom.services import queue_scan

State = RebuildJob.State


@transaction.atomic
def confirm_wave(wave_id: int, *, actor: User) -> RebuildWave:
    """Start a planned wave; raises NotFound, NotPermitted, IllegalTransition.

    Raises BuilderOff when an image must be built and the embedded builder is off for its repository.

    The wave moves tags, so `actor` also needs `image.amend` on every repository whose tag is protected.
    """
    wave = lock_wave(actor, wave_id)
    refuse_if(why_not_confirm(actor, wave))
    for job in wave.jobs.exclude(repository__protected_tags=[]).select_related("repository__team"):
        require_right(job, actor)
    move_wave(wave, RebuildWave.State.RUNNING, confirmed_by=actor, confirmed_at=clock.now())
    record(Action.REBUILD_CONFIRMED, wave, actor)
    _cancel_in_older_waves(wave)
    advance(wave)
    return wave


def supersede_plans(wave: RebuildWave, *, actor: User) -> None:
    """Cancel older unconfirmed plans for this base, if no tag points at their base image any more.

    Plans for an image with a tag are kept, no matter who made them. The caller has locked the base's repository row.
    """
    now = set(Tag.objects.filter(repository=wave.repository, image=wave.new_base).values_list("name", flat=True))
    if not now:
        return
    named = Tag.objects.filter(repository=wave.repository, image__isnull=False).values("image")
    outdated = RebuildWave.objects.select_for_update(of=("self",)).filter(
        repository=wave.repository, state=RebuildWave.State.PLANNED
    )
    for other in outdated.exclude(new_base__in=named).exclude(pk=wave.pk).order_by("-pk"):
        if now & tags_of(wave.repository, other.new_base):
            move_wave(other, RebuildWave.State.CANCELLED)
            for job in other.jobs.filter(state=State.WAITING):
                move(job, State.CANCELLED, problem=f"{wave} plans it on a newer base.")
            record(Action.REBUILD_SUPERSEDED, other, actor, RebuildSuperseded(by=wave.pk))


def _cancel_in_older_waves(wave: RebuildWave) -> None:
    """Cancel waiting jobs of older running waves whose image this wave rebuilds on a newer state of the same base.

    Builds that are already running there continue. Our result replaces theirs, never the other way round
    (`results.may_replace`). Older waves are locked in descending order, so that two confirmations cannot deadlock.
    """
    tags = tags_of(wave.repository, wave.new_base)
    older = RebuildWave.objects.select_for_update(of=("self",)).filter(
        repository=wave.repository, state=RebuildWave.State.RUNNING, pk__lt=wave.pk
    )
    our_repositories = set(wave.jobs.values_list("repository_id", flat=True))
    for other in older.select_related("repository__team", "new_base").order_by("-pk"):
        if not tags & tags_of(wave.repository, other.new_base):
            continue
        pending = list(other.jobs.filter(repository__in=our_repositories, state=State.WAITING))
        while pending:
            job = pending.pop()
            job.refresh_from_db()
            if job.state == State.WAITING:
                move(job, State.CANCELLED, problem=f"{wave} rebuilds it on a newer base.")
                pending += job.children.filter(state=State.WAITING)
        advance(other)


@transaction.atomic
def cancel_wave(wave_id: int, *, actor: User) -> RebuildWave:
    """Cancel a wave: no more jobs start, and no tag moves. A running build ends within seconds."""
    wave = lock_wave(actor, wave_id)
    move_wave(wave, RebuildWave.State.CANCELLED)
    for job in wave.jobs.filter(state=State.WAITING):
        move(job, State.CANCELLED)
    record(Action.REBUILD_CANCELLED, wave, actor)
    return wave


@transaction.atomic
def retry_wave(wave_id: int, *, actor: User) -> RebuildWave:
    """Run failed and blocked jobs again; finished jobs stay as they are."""
    wave = lock_wave(actor, wave_id)
    if wave.state != RebuildWave.State.FAILED:
        raise IllegalTransition(f"{wave} is {wave.state}. Only a failed wave can be retried.")
    move_wave(wave, RebuildWave.State.RUNNING, confirmed_by=actor, finished_at=None)
    for job in wave.jobs.filter(state__in=(State.FAILED, State.BLOCKED)).select_related("new_image"):
        if job.new_image is not None and job.new_image.scanned_at is None:
            Image.objects.filter(pk=job.new_image.pk).update(scan_problem="")
            queue_scan(job.new_image.pk)
        move(job, State.WAITING, problem="", finished_at=None)
    record(Action.REBUILD_RETRIED, wave, actor)
    advance(wave)
    return wave


def resume_waves() -> None:
    """Queue the open jobs of running waves that have no run. This should never be necessary (invariant 10)."""
    runs = open_runs().filter(subject_id=OuterRef("pk"))
    open_jobs = RebuildJob.objects.filter(state__in=OPEN_STATES, wave__state=RebuildWave.State.RUNNING)
    for wave_id in open_jobs.filter(~Exists(runs)).order_by("wave").values_list("wave", flat=True).distinct()[:100]:
        with transaction.atomic():
            wave = RebuildWave.objects.select_for_update().get(pk=wave_id)
            for job in wave.jobs.filter(~Exists(runs), state__in=(State.BUILDING, State.SCANNING)):
                queue_run(job, wave)
            advance(wave)


def require_right(job: RebuildJob, actor: User) -> None:
    """Raise NotPermitted unless `actor` can rebuild this repository's image and move its tag."""
    require(actor, Verb.IMAGE_REBUILD, repository=job.repository)
    if any(matches(pattern, job.tag) for pattern in job.repository.protected_tags):
        require(actor, Verb.IMAGE_AMEND, repository=job.repository)
