"""All processes run as in production. A builder is killed during a real build, and another one takes over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lifecycle.audit.models import AuditEvent
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs.models import Job
from lifecycle.rebuild import planning, services
from lifecycle.rebuild.builders import buildah
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.rebuild.types import BuildRequest
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Tag, TagEvent
from lifecycle.registry.services import ensure_managed_registry
from tests.factories import dock
from tests.services import wait_until

pytestmark = [
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the embedded builder needs root for its namespaces"),
]

SLEEP = "8.75"  # seconds; also identifies the process of this test
BASE = """\
FROM scratch
COPY busybox /bin/busybox
ENV PATH=/bin
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin; echo {content} > /version"]
"""
RECIPE = f"FROM base/shell\nRUN sleep {SLEEP} && echo built >> /version\n"  # changes a file of the base, so no rebase


def push(name, text, context, *, bases=None):
    request = BuildRequest(
        containerfile=text, context=context, build_args={}, bases=bases or {}, repository=name, tag="latest"
    )
    result = buildah.build(request, client_for(ensure_managed_registry()), log=lambda line: None, check=lambda: None)
    return ingest_manifest(ensure_managed_registry().pk, name, result.digest, tag="latest")


def processes(word):
    """Return the command lines of all processes on this machine that contain a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in text:
            found.append(text)
    return found


@pytest.fixture
def started(live_stack, shell_folder, settings):
    """A confirmed wave with one image that takes seconds to build. The build is running."""
    settings.SCRATCH = str(live_stack.home / "scratch")
    owner = dock.user("owner", "owner", of=dock.team("base"))
    dock.user("owner", "owner", of=dock.team("shop"))
    old = push("base/shell", BASE.format(content="old"), shell_folder)
    place = dock.repository("shop/slow")
    services.put_recipe(place.pk, actor=owner, containerfile=RECIPE)
    quick = RECIPE.replace(SLEEP, "0")
    push("shop/slow", quick, None, bases={"base/shell": f"base/shell@{old.digest}"})
    push("base/shell", BASE.format(content="new"), shell_folder)
    lineage = Job.objects.filter(kind="lineage")
    wait_until(lambda: lineage.exists() and not lineage.exclude(state="succeeded").exists(), 60)
    wave = planning.plan_wave("base/shell", actor=owner)
    assert [job.method for job in wave.jobs.all()] == ["build"]
    services.confirm_wave(wave.pk, actor=owner)
    wait_until(lambda: processes(f"sleep {SLEEP}"), 60)
    return wave


def ended(wave):
    wave.refresh_from_db()
    return wave.state != RebuildWave.State.RUNNING


def leftovers(stack):
    """Return the processes, mounts and folders that a build leaves without cleanup."""
    scratch = str(stack.home / "scratch")
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if scratch in line]
    folders = [path.name for path in Path(scratch).glob("gd-*") if "-build-" in path.name or "-context-" in path.name]
    return processes(f"sleep {SLEEP}") + processes(scratch) + mounts + folders


def test_build_killed_halfway_is_repeated_without_traces(live_stack, started):
    old = RebuildJob.objects.get().old_image
    live_stack.kill("builder")
    wait_until(lambda: not processes(f"sleep {SLEEP}"), 5)
    assert RebuildJob.objects.get().state == "building"
    live_stack.need_workers("builder")
    wait_until(lambda: ended(started), 90)
    job, run = RebuildJob.objects.get(), Job.objects.get(kind="rebuild")
    assert (started.state, job.state, job.attempts, job.problem) == ("succeeded", "done", 1, "")
    assert run.fence > 1  # another worker took it over
    tag = Tag.objects.get(repository__name="shop/slow", name="latest")
    moves = TagEvent.objects.filter(tag=tag).exclude(old_image=None)
    assert [(move.old_image, move.new_image) for move in moves] == [(old, job.new_image)]
    assert Image.objects.filter(base_edges__base=started.new_base).get() == job.new_image
    for action in ("rebuild.confirmed", "image.rebuilt", "rebuild.finished"):
        assert AuditEvent.objects.filter(action=action).count() == 1, action
    wait_until(lambda: not leftovers(live_stack), 10)


def test_wave_cancelled_during_build_stops_it_and_cleans_up(live_stack, started):
    old = RebuildJob.objects.get().old_image
    services.cancel_wave(started.pk, actor=started.planned_by)
    wait_until(lambda: RebuildJob.objects.get().state == "cancelled", 20)
    wait_until(lambda: not leftovers(live_stack), 10)
    assert Tag.objects.get(repository__name="shop/slow", name="latest").image == old
    assert not AuditEvent.objects.filter(action="image.rebuilt").exists()
    started.refresh_from_db()
    assert started.state == "cancelled"
