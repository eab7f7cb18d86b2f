"""Recipes, watches, waves: each function checks, locks, changes, audits and queues in one transaction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import (
    Action,
    Details,
    ImageRebuilt,
    RebuildFinished,
    RebuildSuperseded,
    RecipeChanged,
    TagDetails,
)
from lifecycle.authority.access import lock_repository, repository_for
from lifecycle.authority.rights import require
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition, Malformed, NotFound
from lifecycle.core.patterns import matches
from lifecycle.core.states import check_move
from lifecycle.core.types import parse_tag
from lifecycle.evidence.findings import diff_of_images, matches_of_images
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.rebuild import contexts
from lifecycle.rebuild.access import lock_wave
from lifecycle.rebuild.containerfile import base_references
from lifecycle.rebuild.graph import tags_of
from lifecycle.rebuild.kinds import PLAN, REBUILD
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Tag
from lifecycle.registry.platforms import platform_ids
from lifecycle.sbom.services import queue_scan

State = RebuildJob.State
CONTAINERFILE_MAX: Final = 256 * 1024  # characters
_ARGUMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPEN_STATES = (State.WAITING, State.BUILDING, State.SCANNING)


def put_recipe(
    repository_id: int,
    *,
    actor: User,
    containerfile: str,
    context: Mapping[str, bytes] | None = None,
    build_args: Mapping[str, str] | None = None,
    tag: str = "latest",
) -> Recipe:
    """Put a recipe in force: a new revision, or the last one when it says the same.

    The context goes into the repository first, as an artifact. The first recipe of a repository needs `image.create`,
    a later one `image.amend`, since it changes what others rely on. Raises NotFound, NotPermitted, Malformed,
    RegistryUnavailable.
    """
    has_recipe = Recipe.objects.filter(repository_id=repository_id).exists()
    repository = repository_for(actor, repository_id, Verb.IMAGE_AMEND if has_recipe else Verb.IMAGE_CREATE)
    if repository.source_id is not None:
        raise Malformed("Only promotions write here; give the family's own repository the recipe.")
    parse_tag(tag)
    if len(containerfile) > CONTAINERFILE_MAX or "\0" in containerfile:
        raise Malformed(f"A recipe is text of at most {CONTAINERFILE_MAX} characters.")
    arguments = checked_arguments(build_args or {})
    references = base_references(containerfile, arguments)
    digest = contexts.store(client_for(repository.registry), repository.name, context) if context else ""
    said = {"containerfile": containerfile, "context_digest": digest, "build_args": arguments, "tag": tag}
    with transaction.atomic():
        repository = lock_repository(actor, repository_id, Verb.IMAGE_VIEW)
        last = Recipe.objects.filter(repository=repository).order_by("-revision").first()
        # Again under the lock: somebody else's first recipe may have come while the context was stored.
        require(actor, Verb.IMAGE_AMEND if last else Verb.IMAGE_CREATE, repository=repository)
        if last is not None and all(getattr(last, name) == value for name, value in said.items()):
            return last
        recipe = Recipe.objects.create(
            repository=repository, revision=last.revision + 1 if last else 1, base_references=references,
            author=actor, **said,
        )  # fmt: skip
        audit.record(
            Action.RECIPE_CHANGED, actor=actor, subject=recipe, repository=repository, team=repository.team,
            details=RecipeChanged(revision=recipe.revision),
        )  # fmt: skip
    return recipe


def checked_arguments(build_args: Mapping[str, str]) -> dict[str, str]:
    """Return build arguments as they are stored; raises Malformed for a name or value that no builder takes."""
    for name, value in build_args.items():
        if not _ARGUMENT.fullmatch(name) or any(ord(c) < 32 for c in value):
            raise Malformed("A build argument is a name and a value on one line.", argument=name[:60])
    return dict(build_args)


@transaction.atomic
def watch_base(repository_id: int, *, actor: User, tag: str = "latest") -> UpstreamWatch:
    """Propose a wave whenever this tag moves; watching twice is watching once. Raises NotFound, NotPermitted."""
    repository = lock_repository(actor, repository_id, Verb.IMAGE_REBUILD)
    row = Tag.objects.filter(repository=repository, name=parse_tag(tag)).select_related("image").first()
    watch, is_new = UpstreamWatch.objects.get_or_create(
        repository=repository,
        tag=tag,
        defaults={"created_by": actor, "last_digest": row.image.digest if row and row.image else ""},
    )
    if is_new:
        audit.record(
            Action.WATCH_ADDED, actor=actor, subject=watch, repository=repository, team=repository.team,
            details=TagDetails(tag=tag),
        )  # fmt: skip
    return watch


@transaction.atomic
def unwatch(repository_id: int, watch_id: int, *, actor: User) -> None:
    """Propose nothing more when the tag moves; raises NotFound, NotPermitted."""
    repository = lock_repository(actor, repository_id, Verb.IMAGE_REBUILD)
    watch = UpstreamWatch.objects.filter(repository=repository, pk=watch_id).first()
    if watch is None:
        raise NotFound("There is no such watch on this repository.")
    audit.record(
        Action.WATCH_REMOVED, actor=actor, subject=watch, repository=repository, team=repository.team,
        details=TagDetails(tag=watch.tag),
    )  # fmt: skip
    watch.delete()


@transaction.atomic
def confirm_wave(wave_id: int, *, actor: User) -> RebuildWave:
    """Start what was planned; raises NotFound, NotPermitted, IllegalTransition.

    A protected tag moves at the end of a rebuild, so who starts one has to hold `image.amend` there as well.
    """
    wave = lock_wave(actor, wave_id)
    for job in wave.jobs.exclude(repository__protected_tags=[]).select_related("repository__team"):
        require_right(job, actor)
    move_wave(wave, RebuildWave.State.RUNNING, confirmed_by=actor, confirmed_at=clock.now())
    _record(Action.REBUILD_CONFIRMED, wave, actor)
    _overtake(wave)
    _go_on(wave)
    return wave


def supersede_plans(wave: RebuildWave, *, actor: User) -> None:
    """Cancel the plans for this base that nobody confirmed and whose base the tags have left since.

    A plan for what its tag names is left alone, whoever planned it. The caller holds the base's repository row.
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
                move(job, State.CANCELLED, problem=f"{wave} plans it for a newer base.")
            _record(Action.REBUILD_SUPERSEDED, other, actor, RebuildSuperseded(by=wave.pk))


def _overtake(wave: RebuildWave) -> None:
    """Take out of older running waves what waits there and is renewed here, on a newer state of the same base.

    What is being built there goes on: its result is replaced by ours, never the other way round (`may_replace`).
    Older waves are locked in falling order, so that two confirmations cannot wait for each other.
    """
    tags = tags_of(wave.repository, wave.new_base)
    older = RebuildWave.objects.select_for_update(of=("self",)).filter(
        repository=wave.repository, state=RebuildWave.State.RUNNING, pk__lt=wave.pk
    )
    here = set(wave.jobs.values_list("repository_id", flat=True))
    for other in older.select_related("repository__team", "new_base").order_by("-pk"):
        if not tags & tags_of(wave.repository, other.new_base):
            continue
        pending = list(other.jobs.filter(repository__in=here, state=State.WAITING))
        while pending:
            job = pending.pop()
            job.refresh_from_db()
            if job.state == State.WAITING:
                move(job, State.CANCELLED, problem=f"{wave} renews it on a newer base.")
                pending += job.children.filter(state=State.WAITING)
        _go_on(other)


@transaction.atomic
def cancel_wave(wave_id: int, *, actor: User) -> RebuildWave:
    """Start nothing more of the wave and move no tag; a build that runs notices within seconds and ends."""
    wave = lock_wave(actor, wave_id)
    move_wave(wave, RebuildWave.State.CANCELLED)
    for job in wave.jobs.filter(state=State.WAITING):
        move(job, State.CANCELLED)
    _record(Action.REBUILD_CANCELLED, wave, actor)
    return wave


@transaction.atomic
def retry_wave(wave_id: int, *, actor: User) -> RebuildWave:
    """Try again what failed, and what it blocked; what is done stays done."""
    wave = lock_wave(actor, wave_id)
    if wave.state != RebuildWave.State.FAILED:
        raise IllegalTransition(f"{wave} is {wave.state}: only one that failed can be tried again.")
    move_wave(wave, RebuildWave.State.RUNNING, confirmed_by=actor, finished_at=None)
    for job in wave.jobs.filter(state__in=(State.FAILED, State.BLOCKED)).select_related("new_image"):
        if job.new_image is not None and job.new_image.scanned_at is None:
            Image.objects.filter(pk=job.new_image.pk).update(scan_problem="")
            queue_scan(job.new_image.pk)
        move(job, State.WAITING, problem="", finished_at=None)
    _record(Action.REBUILD_RETRIED, wave, actor)
    _go_on(wave)
    return wave


def resume_waves() -> None:
    """Queue what a running wave waits for and nobody works at: should never be, and is not left so (invariant 10)."""
    work = _work().filter(subject_id=OuterRef("pk"))
    open_jobs = RebuildJob.objects.filter(state__in=OPEN_STATES, wave__state=RebuildWave.State.RUNNING)
    for wave_id in open_jobs.filter(~Exists(work)).order_by("wave").values_list("wave", flat=True).distinct()[:100]:
        with transaction.atomic():
            wave = RebuildWave.objects.select_for_update().get(pk=wave_id)
            for job in wave.jobs.filter(~Exists(work), state__in=(State.BUILDING, State.SCANNING)):
                _queue(job, wave)
            _go_on(wave)


def _work() -> QuerySet[Job]:
    """Return the runs that a worker has, or will have, in hand."""
    return Job.objects.filter(kind=REBUILD.name, state__in=(Job.State.WAITING, Job.State.RUNNING))


def _queue(job: RebuildJob, wave: RebuildWave) -> None:
    actor = wave.confirmed_by or wave.planned_by
    jobs.queue(REBUILD, subject_id=job.pk, actor=actor, dedupe_key=f"rebuild:{job.pk}")


def move_wave(wave: RebuildWave, state: str, **changes: object) -> None:
    """Move a locked wave; the only writer of its state. Raises IllegalTransition."""
    check_move(wave, state)
    wave.state = state
    if state != RebuildWave.State.RUNNING:
        wave.finished_at = clock.now()
    for name, value in changes.items():
        setattr(wave, name, value)
    wave.save(update_fields=list({"state", "finished_at", *changes}))


def move(job: RebuildJob, state: str, **changes: object) -> None:
    """Move a job whose wave is locked; the only writer of its state. Raises IllegalTransition."""
    check_move(job, state)
    job.state = state
    if state not in OPEN_STATES:
        job.finished_at = clock.now()
    for name, value in changes.items():
        setattr(job, name, value)
    job.save(update_fields=list({"state", "finished_at", *changes}))


def _locked(job_id: int) -> RebuildJob:
    """Return a job with its wave's row locked: two parents that end at once must not both miss their child."""
    job = RebuildJob.objects.select_related("repository__team", "old_image").get(pk=job_id)
    job.wave = RebuildWave.objects.select_for_update().select_related("repository__team").get(pk=job.wave_id)
    job.refresh_from_db(fields=["state"])
    return job


def begin(job_id: int, *, node_id: str, recipe: Recipe | None = None) -> RebuildJob:
    """Mark a job as being built, by `recipe` or the planned one; inside the worker's fenced transaction.

    A second attempt finds it so already. In a cancelled wave nothing begins, and what an earlier attempt began ends.
    """
    job = _locked(job_id)
    if job.wave.state == RebuildWave.State.CANCELLED:
        _stop(job)
    elif job.state == State.WAITING:
        began = {"node_id": node_id, "recipe": recipe or job.recipe, "started_at": clock.now()}
        move(job, State.BUILDING, attempts=job.attempts + 1, **began)
    return job


def stop_if_cancelled(job_id: int) -> bool:
    """End a job whose wave was cancelled, and return whether it was: asked before anything that cannot be undone."""
    job = _locked(job_id)
    if job.wave.state != RebuildWave.State.CANCELLED:
        return False
    _stop(job)
    return True


def _stop(job: RebuildJob) -> None:
    if job.state in OPEN_STATES:
        move(job, State.CANCELLED)


def built(job_id: int, image: Image, *, method: str, reason: str) -> RebuildJob:
    """Record the result of a build; the old digest again means that nothing above has to be rebuilt."""
    job = _locked(job_id)
    if job.state != State.BUILDING:
        return job
    if image.pk == job.old_image_id:
        move(job, State.UNCHANGED, new_image=image, method=method, method_reason=reason)
        _go_on(job.wave)
    else:
        move(job, State.SCANNING, new_image=image, method=method, method_reason=reason)
    return job


def unchanged(job_id: int, *, reason: str, image: Image | None = None) -> None:
    """Record that there was nothing to rebuild: no base changed, or somebody else moved the tag to `image`."""
    job = _locked(job_id)
    if job.state in (State.BUILDING, State.SCANNING):
        move(job, State.UNCHANGED, method_reason=reason, new_image=image or job.old_image)
        _go_on(job.wave)


def is_renewed(job: RebuildJob) -> bool:
    """Whether a job of a wave ended with another image than it began with, so that what stands on it has to follow."""
    return job.new_image_id is not None and job.new_image_id != job.old_image_id


def may_replace(job: RebuildJob, digest: str) -> bool:
    """Whether a job's result may take the tag that names `digest` now: the image it renews, or an older wave's result.

    Anything else was put there by somebody who knew of it, and stays.
    """
    own = {job.old_image.digest, job.new_image.digest if job.new_image else ""}
    earlier = RebuildJob.objects.filter(
        repository=job.repository_id, tag=job.tag, wave_id__lt=job.wave_id, new_image__digest=digest
    )
    return digest in own or earlier.exists()


def finish(job_id: int) -> None:
    """Compare the scanned result with the old image, and let what stands on it go on."""
    job = _locked(job_id)
    if job.state != State.SCANNING or job.new_image is None:
        return
    if job.wave.state == RebuildWave.State.CANCELLED:
        _stop(job)
        return
    before, after = _findings(job.old_image), _findings(job.new_image)
    ids_before, ids_after = {osv_id for _, osv_id in before}, {osv_id for _, osv_id in after}
    move(
        job,
        State.DONE,
        findings_before=len(before),
        findings_after=len(after),
        fixed=sorted(ids_before - ids_after),
        introduced=sorted(ids_after - ids_before),
        still_open=sorted(ids_after.intersection(job.would_fix or ())),
        remaining_count=len(diff_of_images(job.old_image, job.new_image).remaining),
    )
    audit.record(
        Action.IMAGE_REBUILT, actor=job.wave.confirmed_by or job.wave.planned_by, subject=job,
        repository=job.repository, team=job.repository.team, image=job.new_image,
        details=ImageRebuilt(old=job.old_image.digest, method=job.method),
    )  # fmt: skip
    _go_on(job.wave)


def _findings(image: Image) -> set[tuple[str, str]]:
    """Return the (purl, advisory id) pairs that hold in an image: an id that two feeds know counts once."""
    return {(match.package.purl, match.advisory.osv_id) for match in matches_of_images(platform_ids(image))}


def fail(job_id: int, *, why: str) -> None:
    """Record a failure: what stands on this image is blocked, its siblings go on."""
    job = _locked(job_id)
    if job.state not in OPEN_STATES:
        return
    if job.wave.state == RebuildWave.State.CANCELLED:
        _stop(job)
        return
    if job.state == State.WAITING:  # it did not get as far as its build
        move(job, State.BUILDING, started_at=clock.now(), attempts=job.attempts + 1)
    move(job, State.FAILED, problem=why[:2000])
    audit.record(
        Action.IMAGE_REBUILD_FAILED, actor=job.wave.confirmed_by or job.wave.planned_by, subject=job, outcome="failed",
        reason=why[:300], repository=job.repository, team=job.repository.team, image=job.old_image,
    )  # fmt: skip
    blocked = [job]
    while blocked:
        parent = blocked.pop()
        for child in parent.children.filter(state=State.WAITING):
            move(child, State.BLOCKED, problem="What it stands on could not be rebuilt.")
            blocked.append(child)
    _go_on(job.wave)


def _go_on(wave: RebuildWave) -> None:
    """Queue every job whose parents are done, or end the wave when no job is left; the wave is locked.

    Not one that is queued, or that a worker took and has not begun: a second run would make the same image beside it.
    """
    rows = list(wave.jobs.prefetch_related("parents"))
    if wave.state == RebuildWave.State.RUNNING:
        ready = [
            job for job in rows
            if job.state == State.WAITING
            and all(parent.state in (State.DONE, State.UNCHANGED) for parent in job.parents.all())
        ]  # fmt: skip
        in_hand = set(_work().filter(subject_id__in=[job.pk for job in ready]).values_list("subject_id", flat=True))
        for job in ready:
            if job.pk not in in_hand:
                _queue(job, wave)
    if wave.state != RebuildWave.State.RUNNING or any(job.state in OPEN_STATES for job in rows):
        return
    is_good = all(job.state in (State.DONE, State.UNCHANGED, State.CANCELLED) for job in rows)
    is_over = all(job.state == State.CANCELLED for job in rows) and bool(rows)  # a newer wave took all of it
    end = RebuildWave.State.SUCCEEDED if is_good else RebuildWave.State.FAILED
    move_wave(wave, RebuildWave.State.CANCELLED if is_over else end)
    actor = wave.confirmed_by or wave.planned_by
    _record(Action.REBUILD_FINISHED, wave, actor, RebuildFinished(state=wave.state))
    # While it ran, watches of its own images proposed nothing (planning.propose): what is left, they see now.
    renewed = [job.repository_id for job in rows if is_renewed(job)]
    for watch in UpstreamWatch.objects.filter(repository__in=renewed).order_by("pk"):
        _queue_plan(watch)


def queue_plans(repository_id: int, tag: str) -> None:
    """Queue a plan for every watch of this tag, in the caller's transaction."""
    for watch in UpstreamWatch.objects.filter(repository=repository_id, tag=tag):
        _queue_plan(watch)


def _queue_plan(watch: UpstreamWatch) -> None:
    jobs.queue(PLAN, subject_id=watch.pk, actor=system_user(), dedupe_key=f"watch:{watch.pk}")


def require_right(job: RebuildJob, actor: User) -> None:
    """Raise NotPermitted when `actor` may not, or no longer, rebuild this repository's image and move its tag."""
    require(actor, Verb.IMAGE_REBUILD, repository=job.repository)
    if any(matches(pattern, job.tag) for pattern in job.repository.protected_tags):
        require(actor, Verb.IMAGE_AMEND, repository=job.repository)


def _record(action: Action, wave: RebuildWave, actor: User, details: Details | None = None) -> None:
    audit.record(
        action, actor=actor, subject=wave, repository=wave.repository, team=wave.repository.team, image=wave.new_base,
        details=details,
    )  # fmt: skip
