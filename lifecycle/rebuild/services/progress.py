"""The states of waves and jobs, and the runs that are queued when a wave advances."""

from __future__ import annotations

from typing import Final

from django.db.models import QuerySet

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import Details
from lifecycle.audit.details_of_images import RebuildFinished
from lifecycle.core import clock
from lifecycle.core.states import move_row
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.rebuild.kinds import REBUILD
from lifecycle.rebuild.models import RebuildJob, RebuildWave, UpstreamWatch
from lifecycle.rebuild.services.watches import queue_plan

State = RebuildJob.State
OPEN_STATES: Final = (State.WAITING, State.BUILDING, State.SCANNING)


def record(action: Action, wave: RebuildWave, actor: User, details: Details | None = None) -> None:
    """Record an action on a wave in the audit log."""
    audit.record(
        action, actor=actor, subject=wave, repository=wave.repository, team=wave.repository.team, image=wave.new_base,
        details=details,
    )  # fmt: skip


def open_runs() -> QuerySet[Job]:
    """Return the runs of rebuild jobs that wait for a worker or that a worker has claimed."""
    return Job.objects.filter(kind=REBUILD.name, state__in=(Job.State.WAITING, Job.State.RUNNING))


def queue_run(job: RebuildJob, wave: RebuildWave) -> None:
    """Queue a run of one job, on behalf of the user who confirmed the wave."""
    actor = wave.confirmed_by or wave.planned_by
    jobs.queue(REBUILD, subject_id=job.pk, actor=actor, dedupe_key=f"rebuild:{job.pk}")


def move_wave(wave: RebuildWave, state: str, **changes: object) -> None:
    """Change the state of a locked wave, with other fields; the only writer of its state. Raises IllegalTransition."""
    if state != RebuildWave.State.RUNNING:
        changes.setdefault("finished_at", clock.now())
    move_row(wave, state, **changes)


def move(job: RebuildJob, state: str, **changes: object) -> None:
    """Change the state of a job whose wave is locked; the only writer of its state. Raises IllegalTransition."""
    if state not in OPEN_STATES:
        changes.setdefault("finished_at", clock.now())
    move_row(job, state, **changes)


def advance(wave: RebuildWave) -> None:
    """Queue every job whose parents are done, or finish the wave when no job is open. The caller has locked the wave.

    Skips jobs with an open run, because a second run would make the same image at the same time.
    """
    rows = list(wave.jobs.prefetch_related("parents"))
    if wave.state == RebuildWave.State.RUNNING:
        ready = [
            job for job in rows
            if job.state == State.WAITING
            and all(parent.state in (State.DONE, State.UNCHANGED) for parent in job.parents.all())
        ]  # fmt: skip
        with_run = set(
            open_runs().filter(subject_id__in=[job.pk for job in ready]).values_list("subject_id", flat=True)
        )
        for job in ready:
            if job.pk not in with_run:
                queue_run(job, wave)
    if wave.state != RebuildWave.State.RUNNING or any(job.state in OPEN_STATES for job in rows):
        return
    is_good = all(job.state in (State.DONE, State.UNCHANGED, State.CANCELLED) for job in rows)
    is_over = all(job.state == State.CANCELLED for job in rows) and bool(rows)  # a newer wave has all of them
    end = RebuildWave.State.SUCCEEDED if is_good else RebuildWave.State.FAILED
    move_wave(wave, RebuildWave.State.CANCELLED if is_over else end)
    record(Action.REBUILD_FINISHED, wave, wave.confirmed_by or wave.planned_by, RebuildFinished(state=wave.state))
    # While the wave was running, watches of its images created no plans (planning.propose). Check them now.
    updated = [job.repository_id for job in rows if job.has_new_image]
    for watch in UpstreamWatch.objects.filter(repository__in=updated).order_by("pk"):
        queue_plan(watch)
