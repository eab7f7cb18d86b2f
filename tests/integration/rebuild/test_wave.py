"""A moved base and its rebuild wave: real registry, builds and scans; jobs are run one by one."""

from __future__ import annotations

import os
import shutil

import pytest

from accounts.models import Role, Team, User
from lifecycle.authority.models import RoleGrant
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.rebuild import planning, services
from lifecycle.rebuild.builders import buildah
from lifecycle.rebuild.containerfile import split_reference
from lifecycle.rebuild.models import BuilderPermit, RebuildWave
from lifecycle.rebuild.types import BuildRequest
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry, Repository, Tag

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the embedded builder needs root for its namespaces"),
]


def run_jobs():
    for _ in range(60):
        Job.objects.filter(state=Job.State.WAITING).update(not_before=None)
        waiting = list(Job.objects.filter(state=Job.State.WAITING).order_by("kind", "pk"))
        if not waiting:
            return
        for job in sorted(waiting, key=lambda job: job.kind == "rebuild"):
            running.run(job.pk)


@pytest.fixture
def dock(services, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("lifecycle.jobs.services.wake", lambda job_id, queue: None)  # the test runs the jobs itself
    services.need_registry()
    (services.home / "scratch").mkdir(exist_ok=True)
    settings.SCRATCH = str(services.home / "scratch")
    registry = Registry.objects.create(name="managed", endpoint=services.registry.url, is_managed=True)
    person = User.objects.create(username="mia")
    for slug in ("base", "shop"):
        team = Team.objects.create(slug=slug, name=slug)
        RoleGrant.objects.create(user=person, team=team, role=Role.objects.get(slug="maintainer"))
        BuilderPermit.objects.create(team=team, turned_on_by=person)
    return Dock(registry, person, tmp_path)


class Dock:
    def __init__(self, registry, person, folder):
        self.registry, self.person, self.folder = registry, person, folder
        self.client = client_for(registry)

    def push(self, name, text, files, *, bases=None):
        context = self.folder / name.replace("/", "-")
        context.mkdir(exist_ok=True)
        for file, content in files.items():
            (context / file).write_text(content)
        request = BuildRequest(
            containerfile=text, context=context, build_args={}, bases=bases or {}, repository=name, tag="latest"
        )
        result = buildah.build(request, self.client, log=lambda line: None, check=lambda: None)
        ingest_manifest(self.registry.pk, name, result.digest, tag="latest")
        return result.digest

    def image(self, name, text, files):
        """Push an image and store its recipe, as a team does."""
        repository = Repository.objects.filter(registry=self.registry, name=name).first()
        if repository is None:
            team = Team.objects.get(slug=name.partition("/")[0])
            repository = Repository.objects.create(registry=self.registry, team=team, name=name, family=name)
        recipe = services.put_recipe(
            repository.pk,
            actor=self.person,
            containerfile=text,
            context={file: content.encode() for file, content in files.items()},
        )
        bases = {}
        for reference in recipe.base_references:
            tag = Tag.objects.get(repository__name=split_reference(reference)[0], name="latest")
            bases[reference] = f"{tag.repository.name}@{tag.image.digest}"
        return self.push(name, text, files, bases=bases)


def state_of(wave):
    return {job.repository.name: (job.level, job.method, job.state) for job in wave.jobs.select_related("repository")}


@pytest.mark.long
def test_moved_base_rebuilds_derived_images_and_failure_blocks_descendants(dock):
    dock.push("base/small", "FROM scratch\nCOPY a /a\n", {"a": "old"})
    dock.image("shop/static", "FROM base/small\nCOPY page /srv/page\n", {"page": "hello"})
    dock.image("shop/api", "FROM base/small\nCOPY b /a\n", {"b": "mine"})
    dock.image("shop/worker", "FROM shop/api\nCOPY c /c\n", {"c": "c"})
    dock.image("shop/lost", "FROM base/small\nCOPY d /a\n", {"d": "d"})
    dock.image("shop/child", "FROM shop/lost\nCOPY e /e\n", {"e": "e"})
    lost = Repository.objects.get(name="shop/lost")
    services.put_recipe(
        lost.pk, actor=dock.person, containerfile="FROM base/small\nCOPY missing /a\n", context={"d": b"d"}
    )
    run_jobs()
    before = {tag.repository.name: tag.image.digest for tag in Tag.objects.filter(name="latest")}
    base = Repository.objects.get(name="base/small")
    services.watch_base(base.pk, actor=dock.person)
    new = dock.push("base/small", "FROM scratch\nCOPY a /a\nCOPY n /n\n", {"a": "patched", "n": "n"})
    run_jobs()

    wave = RebuildWave.objects.get()
    assert (wave.state, wave.trigger, wave.new_base.digest) == ("planned", "watch", new)
    assert state_of(wave) == {
        "shop/static": (1, "rebase", "waiting"),
        "shop/api": (1, "build", "waiting"),
        "shop/lost": (1, "build", "waiting"),
        "shop/worker": (2, "rebase", "waiting"),
        "shop/child": (2, "rebase", "waiting"),
    }
    assert wave.jobs.get(repository__name="shop/api").method_reason == "It replaces a file of the base (/a)."

    services.confirm_wave(wave.pk, actor=dock.person)
    run_jobs()

    wave.refresh_from_db()
    after = {tag.repository.name: tag.image.digest for tag in Tag.objects.filter(name="latest")}
    assert {name: job[2] for name, job in state_of(wave).items()} == {
        "shop/static": "done",
        "shop/api": "done",
        "shop/worker": "done",
        "shop/lost": "failed",
        "shop/child": "blocked",
    }
    assert wave.state == "failed"
    assert {name for name in after if after[name] != before[name]} == {
        "base/small", "shop/static", "shop/api", "shop/worker"
    }  # fmt: skip
    static = Image.objects.get(digest=after["shop/static"])
    assert static.base_edges.get().base.digest == new
    assert "declared" in static.base_edges.get().evidence


def test_rebuild_copies_from_rebuilt_image_and_uses_latest_recipe(dock):
    dock.push("base/small", "FROM scratch\nCOPY a /a\n", {"a": "old"})
    dock.image("shop/tools", "FROM base/small\nCOPY t /t\n", {"t": "tools"})
    dock.image("shop/api", "FROM base/small\nCOPY --from=shop/tools /t /t2\nCOPY b /b\n", {"b": "b"})
    run_jobs()
    new = dock.push("base/small", "FROM scratch\nCOPY a /a\n", {"a": "patched"})
    wave = planning.plan_wave("base/small", actor=dock.person)
    assert state_of(wave) == {"shop/tools": (1, "rebase", "waiting"), "shop/api": (2, "build", "waiting")}
    changed = services.put_recipe(
        Repository.objects.get(name="shop/api").pk, actor=dock.person, context={"c": b"c"},
        containerfile="FROM base/small\nCOPY --from=shop/tools /t /t3\nCOPY c /c\n",
    )  # fmt: skip
    services.confirm_wave(wave.pk, actor=dock.person)
    run_jobs()

    job = wave.jobs.get(repository__name="shop/api")
    assert (job.state, job.recipe, job.method) == ("done", changed, "build")
    tools = wave.jobs.get(repository__name="shop/tools").new_image
    assert {edge.base.digest for edge in job.new_image.base_edges.all()} == {new, tools.digest}
    lines = Job.objects.get(kind="rebuild", subject_id=job.pk).log_lines.values_list("text", flat=True)
    assert any(line.startswith("Building from recipe 2. The image cannot be rebased:") for line in lines)
