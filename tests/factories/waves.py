"""Rows of rebuilds for page tests: the harbour's base has moved, and a wave over it is as far as a test asks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accounts.models import User
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Image, Repository
from tests.factories import dock

ORDER = ("base/python", "shop/static", "shop/api", "shop/worker")
LEVELS = {"base/python": 1, "shop/static": 1, "shop/api": 2, "shop/worker": 3}
WOULD_FIX = ("CVE-2023-5678", "CVE-2024-45490", "CVE-2024-5535")
CONTAINERFILE = "FROM base/python:1.0\nRUN pip install urllib3==1.26.5\nCOPY app.py /srv/\n"


def recipe(where: Repository, author: User, **more: Any) -> Recipe:
    """Return another revision of a repository's recipe."""
    revision = Recipe.objects.filter(repository=where).count() + 1
    given = {"containerfile": CONTAINERFILE, "base_references": ["base/python:1.0"], "tag": "1.0"} | more
    return Recipe.objects.create(repository=where, revision=revision, author=author, **given)


def planned(harbour: dict[str, Any], **more: Any) -> RebuildWave:
    """Return a wave over the harbour's moved base, as the planner would write it."""
    reader = harbour["reader"]
    wave = RebuildWave.objects.create(
        repository=Repository.objects.get(name="base/debian"),
        old_base=harbour["old"],
        new_base=harbour["new"],
        planned_by=reader,
        trigger="watch",
        skipped=[
            {"repository": "shop/jobs", "reason": "It has no recipe, and cannot be rebased: its base is not known."}
        ],
        **more,
    )
    parents: dict[str, RebuildJob] = {}
    for name in ORDER:
        where = Repository.objects.get(name=name)
        is_rebase = name == "shop/static"
        job = RebuildJob.objects.create(
            wave=wave,
            repository=where,
            level=LEVELS[name],
            old_image=Image.objects.get(digest=dock.sha(name)),
            recipe=None if is_rebase else recipe(where, reader),
            tag="1.0",
            would_fix=None if name == "shop/worker" else list(WOULD_FIX),  # the worker's image counts as not scanned
            method="rebase" if is_rebase else "build",
            method_reason="Its own layers go onto the new base as they are."
            if is_rebase
            else "A layer of it writes the package database /var/lib/dpkg/status, which would hide the new base's.",
        )
        parents[name] = job
    parents["shop/api"].parents.add(parents["base/python"])
    parents["shop/worker"].parents.add(parents["shop/api"])
    return wave


def job_of(wave: RebuildWave, name: str) -> RebuildJob:
    return RebuildJob.objects.get(wave=wave, repository__name=name)


def log(job: RebuildJob, *lines: str, actor: User) -> Job:
    """Give a job's run some lines; the run is made when there is none."""
    run = Job.objects.filter(kind="rebuild", subject_id=job.pk).first() or Job.objects.create(
        kind="rebuild", subject_id=job.pk, actor=actor
    )
    for line in lines:
        JobLogLine.objects.create(job=run, text=line)
    return run


def finish(
    job: RebuildJob, *, fixed: tuple[str, ...] = (), introduced: tuple[str, ...] = (), remaining: int = 0
) -> Image:
    """Mark a job as done with a new image under its tag; returns that image."""
    made = dock.image(f"{job.repository.name} rebuilt by {job.wave_id}", layers=3)
    dock.push(job.repository, made, job.tag)
    now = clock.now()
    RebuildJob.objects.filter(pk=job.pk).update(
        state="done", new_image=made, attempts=1, fixed=list(fixed), introduced=list(introduced),
        remaining_count=remaining, findings_before=len(fixed) + remaining, findings_after=len(introduced) + remaining,
        started_at=now - timedelta(seconds=100), finished_at=now - timedelta(seconds=30),
    )  # fmt: skip
    return made


def running(harbour: dict[str, Any]) -> RebuildWave:
    """Return a wave half-way: python built, static rebased, api being built with a log, worker waiting."""
    wave = planned(harbour)
    RebuildWave.objects.filter(pk=wave.pk).update(
        state="running", confirmed_by=harbour["reader"], confirmed_at=clock.now() - timedelta(minutes=4)
    )
    fixed = ("CVE-2023-5678", "CVE-2024-45490", "CVE-2024-5535")
    finish(job_of(wave, "base/python"), fixed=fixed, introduced=("CVE-2025-64756",), remaining=2)
    finish(job_of(wave, "shop/static"), fixed=fixed, remaining=2)
    RebuildJob.objects.filter(pk=job_of(wave, "shop/api").pk).update(
        state="building", attempts=1, started_at=clock.now() - timedelta(seconds=36)
    )
    log(
        job_of(wave, "shop/api"),
        "Building from the recipe, not rebasing: a layer of it writes the package database.",
        "STEP 1/4: FROM base/python@sha256:9a2b",
        "STEP 2/4: RUN pip install urllib3==1.26.5",
        "Collecting urllib3==1.26.5",
        actor=harbour["reader"],
    )
    wave.refresh_from_db()
    return wave


def failed(harbour: dict[str, Any]) -> RebuildWave:
    """Return a wave that ended with a failure and what it blocked."""
    wave = running(harbour)
    api, worker = job_of(wave, "shop/api"), job_of(wave, "shop/worker")
    log(api, "ERROR: No matching distribution found for urllib3==1.26.5", actor=harbour["reader"])
    now = clock.now()
    RebuildJob.objects.filter(pk=api.pk).update(
        state="failed", problem="The build failed: STEP 2/4 ended with exit code 1.", finished_at=now
    )
    RebuildJob.objects.filter(pk=worker.pk).update(
        state="blocked", problem="shop/api could not be rebuilt.", finished_at=now
    )
    RebuildWave.objects.filter(pk=wave.pk).update(state="failed", finished_at=now)
    wave.refresh_from_db()
    return wave


def environment(slug: str, holds: Image, where: Repository) -> Environment:
    """Return an environment of the repository's team that holds an image of it now."""
    made, _ = Environment.objects.get_or_create(
        team=where.team, slug=slug, defaults={"name": slug, "position": 0, "prefix": slug}
    )
    Slot.objects.create(repository=where, environment=made, image=holds, tag="1.0", since=clock.now())
    return made


def watch(where: Repository, by: User, tag: str = "bookworm") -> UpstreamWatch:
    """Return a watch on a tag of a base."""
    return UpstreamWatch.objects.create(
        repository=where, tag=tag, created_by=by, last_digest=dock.sha("base/debian old")
    )
