"""Whole waves over a registry in memory. Only rebases run, so no builder is needed. Jobs run one by one.

Only syft is replaced: its package list is stored as a scan stores it.
"""

from __future__ import annotations

import json

import pytest

from accounts.models import Role
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition, RegistryUnavailable
from lifecycle.ingest import services as ingest
from lifecycle.jobs import running as job_runs
from lifecycle.jobs.models import Job
from lifecycle.lineage.services import derive
from lifecycle.rebuild import methods, planning, services
from lifecycle.rebuild.builders import buildah
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.rebuild.types import BuildFailed
from lifecycle.registry.models import Image, TagEvent
from tests.factories import dock, oci

pytestmark = pytest.mark.django_db
State = RebuildJob.State


def shape(wave):
    return {job.repository.name: (job.level, job.state) for job in wave.jobs.select_related("repository")}


def test_four_levels_are_rebuilt_each_on_its_new_base(yard):
    yard.four_levels()
    before = {name: yard.tag(name) for name in ("base/python", "shop/api", "shop/worker", "shop/static")}
    new = yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    wave = yard.wave()
    assert shape(wave) == {
        "base/python": (1, "waiting"),
        "shop/static": (1, "waiting"),
        "shop/api": (2, "waiting"),
        "shop/worker": (3, "waiting"),
    }
    yard.settle()
    wave.refresh_from_db()
    assert (wave.state, {state for _, state in shape(wave).values()}) == ("succeeded", {"done"})
    assert new.digest in yard.bases("base/python") & yard.bases("shop/static")
    assert yard.tag("base/python").digest in yard.bases("shop/api")
    assert yard.tag("shop/api").digest in yard.bases("shop/worker")
    for name, image in before.items():
        moves = TagEvent.objects.filter(tag__repository__name=name, tag__name="latest").exclude(old_image=None)
        assert [(move.old_image, move.new_image) for move in moves] == [(image, yard.tag(name))]
    assert AuditEvent.objects.filter(action="image.rebuilt").count() == 4
    with pytest.raises(planning.NothingToRebuild, match="nothing to rebuild"):
        planning.plan_wave("base/debian:latest", actor=yard.owner)


def test_second_base_move_gets_own_plan_and_replaces_waiting_one(yard):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    first = yard.wave()
    second_new = yard.push("base/debian", "debian 3", packages=("openssl", "3"))  # runs the first wave to its end
    assert {state for _, state in shape(first).values()} == {"done"}
    second = planning.plan_wave("base/debian:latest", actor=yard.owner)
    assert second.pk != first.pk
    services.confirm_wave(second.pk, actor=yard.owner)
    yard.settle()
    second.refresh_from_db()
    assert second.state == "succeeded"
    assert second_new.digest in yard.bases("shop/static")


def test_newer_wave_takes_over_waiting_jobs_and_keeps_the_tag(yard):
    yard.four_levels()
    old_static = yard.tag("shop/static")
    yard.push("base/debian", "debian 2")
    first = yard.wave()
    static = first.jobs.get(repository__name="shop/static")
    run = Job.objects.get(kind="rebuild", subject_id=static.pk)
    yard.run(run)  # built but not scanned yet: it continues
    item = oci.image("debian 3")
    oci.push(yard.shelf, "base/debian", item, "latest")
    ingest.ingest_manifest(dock.registry().pk, "base/debian", item.manifest.digest.text, tag="latest")
    second = yard.wave()
    assert shape(first) == {
        "base/python": (1, "cancelled"),
        "shop/static": (1, "scanning"),
        "shop/api": (2, "cancelled"),
        "shop/worker": (3, "cancelled"),
    }
    assert first.jobs.get(repository__name="shop/api").problem == f"{second} rebuilds it on a newer base."
    assert second.jobs.get(repository__name="shop/static").old_image == old_static
    yard.settle()
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == ("succeeded", "succeeded")
    assert item.manifest.digest.text in yard.bases("shop/static") & yard.bases("base/python")


def test_late_result_of_older_wave_does_not_take_the_tag(yard):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    first = yard.wave()
    late = first.jobs.get(repository__name="shop/static")
    late_run = Job.objects.get(kind="rebuild", subject_id=late.pk)
    yard.run(late_run)
    Job.objects.filter(pk=late_run.pk).update(state="cancelled", finished_at=clock.now())  # its worker died
    yard.push("base/debian", "debian 3", packages=("openssl", "3"))
    second = yard.wave()
    yard.settle()
    newest = yard.tag("shop/static")
    assert newest == second.jobs.get(repository__name="shop/static").new_image
    Job.objects.create(kind="rebuild", subject_id=late.pk, actor=yard.owner)
    yard.settle()
    late.refresh_from_db()
    assert (yard.tag("shop/static"), late.state) == (newest, "unchanged")


def test_unconfirmed_plan_ends_when_its_base_moves_again(yard):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    stale = planning.plan_wave("base/debian:latest", actor=yard.owner)
    assert planning.plan_wave("base/debian:latest", actor=yard.owner) == stale
    yard.push("base/debian", "debian 3")
    fresh = planning.plan_wave("base/debian:latest", actor=yard.owner)
    stale.refresh_from_db()
    assert (stale.state, fresh.state) == ("cancelled", "planned")
    assert stale.jobs.first().problem == f"{fresh} plans it on a newer base."
    with pytest.raises(IllegalTransition):
        services.confirm_wave(stale.pk, actor=yard.owner)


def test_tag_moved_by_user_stays_and_derived_images_build_on_it(yard):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    wave = planning.plan_wave("base/debian:latest", actor=yard.owner)
    theirs = yard.push("shop/api", "api by hand", on="base/python")
    services.confirm_wave(wave.pk, actor=yard.owner)
    yard.settle()
    wave.refresh_from_db()
    api = wave.jobs.get(repository__name="shop/api")
    assert (api.state, api.new_image, yard.tag("shop/api")) == ("unchanged", theirs, theirs)
    assert api.method_reason == "The tag latest was moved by another user during the rebuild, and was not changed."
    assert (wave.state, theirs.digest in yard.bases("shop/worker")) == ("succeeded", True)


def test_wave_cancelled_during_result_scan_moves_no_tag(yard):
    yard.four_levels()
    old = yard.tag("shop/static")
    yard.push("base/debian", "debian 2")
    wave = yard.wave()
    yard.run(Job.objects.get(kind="rebuild", subject_id=wave.jobs.get(repository__name="shop/static").pk))
    services.cancel_wave(wave.pk, actor=yard.owner)
    yard.settle()
    assert {state for _, state in shape(wave).values()} == {"cancelled"}
    assert yard.tag("shop/static") == old
    wave.refresh_from_db()
    assert wave.state == "cancelled"


def test_watch_of_image_in_running_wave_plans_no_second_wave(yard):
    yard.four_levels()
    for name in ("base/debian", "base/python", "shop/api"):
        services.watch_base(dock.repository(name).pk, actor=yard.owner)
    new = yard.push("base/debian", "debian 2")
    wave = RebuildWave.objects.get()
    assert (wave.trigger, wave.new_base, wave.jobs.count()) == ("watch", new, 4)
    services.confirm_wave(wave.pk, actor=yard.owner)
    yard.settle()
    assert list(RebuildWave.objects.values_list("pk", "state")) == [(wave.pk, "succeeded")]
    for watch in UpstreamWatch.objects.all():
        assert watch.last_digest == yard.tag(watch.repository.name).digest


def test_unavailable_registry_skips_no_image_and_watch_retries(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    watch = services.watch_base(dock.repository("base/debian").pk, actor=yard.owner)
    yard.shelf.is_away = True
    with pytest.raises(AssertionError, match="jobs without end"):
        yard.push("base/debian", "debian 2", rounds=2)
    assert Job.objects.get(kind="plan", state="waiting").error_code == "registry_unavailable"
    with pytest.raises(RegistryUnavailable):
        planning.plan_wave("base/debian:latest", actor=yard.owner)
    assert not RebuildWave.objects.exists()
    yard.shelf.is_away = False
    yard.settle()
    assert list(shape(RebuildWave.objects.get())) == ["shop/static"]
    watch.refresh_from_db()
    assert watch.last_digest == yard.tag("base/debian").digest


def test_watch_plans_what_a_wave_did_not_reach_after_it_ends(yard):
    yard.four_levels()
    watch = services.watch_base(dock.repository("shop/api").pk, actor=yard.owner)
    yard.push("base/debian", "debian 2")
    wave = yard.wave()
    worker = wave.jobs.get(repository__name="shop/worker")
    services.begin(worker.pk, node_id="sha256:0")
    services.fail(worker.pk, why="exit 1")
    yard.settle()
    wave.refresh_from_db()
    assert wave.state == "failed"
    proposed = RebuildWave.objects.get(trigger="watch")
    assert (proposed.state, proposed.new_base, list(shape(proposed))) == (
        "planned",
        yard.tag("shop/api"),
        ["shop/worker"],
    )
    watch.refresh_from_db()
    assert watch.last_digest == yard.tag("shop/api").digest


def test_retry_repeats_only_unfinished_jobs(yard):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    wave = yard.wave()
    services.fail(wave.jobs.get(repository__name="shop/api").pk, why="exit 1")
    yard.settle()
    wave.refresh_from_db()
    assert (wave.state, shape(wave)["shop/worker"]) == ("failed", (3, "blocked"))
    done = {name: yard.tag(name) for name in ("base/python", "shop/static")}
    writes = len(yard.shelf.calls)
    services.retry_wave(wave.pk, actor=yard.owner)
    yard.settle()
    wave.refresh_from_db()
    assert (wave.state, {state for _, state in shape(wave).values()}) == ("succeeded", {"done"})
    assert {name: yard.tag(name) for name in done} == done
    assert not [call for call in yard.shelf.calls[writes:] if call[:2] == ("put_manifest", "shop/static")]


def test_retry_repeats_failed_scan_of_result(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    yard.push("base/debian", "debian 2")
    wave = yard.wave()
    yard.run(Job.objects.get(kind="rebuild"))
    result = RebuildJob.objects.get().new_image
    Job.objects.filter(kind="scan").update(state="failed", finished_at=clock.now())
    Image.objects.filter(pk=result.pk).update(scan_problem="syft died")
    yard.settle()
    assert RebuildJob.objects.get().problem == "The result could not be scanned: syft died"
    services.retry_wave(wave.pk, actor=yard.owner)
    yard.settle()
    assert (RebuildJob.objects.get().state, yard.tag("shop/static")) == ("done", result)


@pytest.mark.parametrize("death", range(1, 9))
def test_worker_killed_at_any_step_leaves_one_effect(yard, death):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    yard.push("base/debian", "debian 2")
    wave = yard.wave()
    yard.shelf.fail_after, yard.shelf._writes = death, 0
    run = Job.objects.get(kind="rebuild")
    job_runs.run(run.pk)
    yard.shelf.fail_after = None
    yard.settle()
    wave.refresh_from_db()
    assert (wave.state, RebuildJob.objects.get().state) == ("succeeded", "done")
    moves = TagEvent.objects.filter(tag__repository__name="shop/static", tag__name="latest").exclude(old_image=None)
    assert moves.count() == 1
    assert AuditEvent.objects.filter(action="image.rebuilt").count() == 1


def test_abandoned_job_is_resumed(yard):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    wave = yard.wave()
    yard.run(Job.objects.get(kind="rebuild", subject_id=wave.jobs.get(repository__name="shop/static").pk))
    Job.objects.filter(kind="rebuild").update(state="cancelled", finished_at=clock.now())
    yard.settle()
    wave.refresh_from_db()
    assert (wave.state, shape(wave)["shop/static"]) == ("running", (1, "scanning"))
    services.resume_waves()
    services.resume_waves()
    assert Job.objects.filter(kind="rebuild", state="waiting").count() == 2
    yard.settle()
    wave.refresh_from_db()
    assert wave.state == "succeeded"


def test_concurrent_waves_over_different_bases_are_independent(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/tools", "tools 1")
    yard.push("shop/static", "static", on="base/debian")
    yard.push("shop/helper", "helper", on="shop/tools")
    yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    yard.push("shop/tools", "tools 2", packages=("zlib", "2"))
    waves = [yard.wave("base/debian:latest"), yard.wave("shop/tools:latest")]
    yard.settle()
    for wave in waves:
        wave.refresh_from_db()
        assert wave.state == "succeeded"
    assert yard.tag("base/debian").digest in yard.bases("shop/static")
    assert yard.tag("shop/tools").digest in yard.bases("shop/helper")


def test_rebuild_is_refused_after_user_lost_the_right(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    yard.push("base/debian", "debian 2")
    old = yard.tag("shop/static")
    wave = yard.wave()
    RoleGrant.objects.filter(team__slug="shop").update(role=Role.objects.get(slug="viewer"))
    yard.settle()
    wave.refresh_from_db()
    assert (wave.state, yard.tag("shop/static")) == ("failed", old)
    assert "image.rebuild" in RebuildJob.objects.get().problem


def test_recipe_gets_no_base_hidden_from_its_author(yard):
    secret = yard.push("secret/base", "secret 1")
    yard.push("shop/api", "api")
    stranger = dock.user("stranger", "owner", of=dock.team("shop"))
    everyone = dock.user("admin", "owner", of=dock.team("shop"))
    dock.user("admin", "owner", of=dock.team("secret"))
    Recipe.objects.create(
        repository=dock.repository("shop/api"), revision=1, containerfile="FROM secret/base\n", author=stranger,
        base_references=["secret/base"],
    )  # fmt: skip
    wave = yard.wave("secret/base:latest", by=everyone)
    assert shape(wave) == {"shop/api": (1, "waiting")}
    yard.settle()
    job = RebuildJob.objects.get()
    assert (job.state, job.problem) == (
        "failed", "The base secret/base is not in the registry, or the author of the recipe cannot see it."
    )  # fmt: skip
    assert secret.digest not in str(yard.shelf.calls[-1])


@pytest.mark.parametrize(("limit", "value"), [("READ_MAX_S", -1.0), ("READ_MAX_BYTES", 10)])
def test_plan_stops_reading_layers_at_limit_and_worker_decides(yard, monkeypatch, limit, value):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    monkeypatch.setattr(methods, limit, value)
    wave = yard.wave()
    reason = "Reading the layers exceeds the limits of a plan. The worker decides whether the image can be rebased."
    assert {(job.method, job.method_reason) for job in wave.jobs.all()} == {("rebase", reason)}
    yard.settle()
    wave.refresh_from_db()
    assert wave.state == "succeeded"
    assert {job.method_reason for job in wave.jobs.all()} == {"Its own layers were put onto the new base unchanged."}


BAD_CONFIGS = {
    "labels": {"config": {"Labels": [1]}},
    "env": {"config": {"Env": [5]}},
    "history": {"history": [1, 2]},
    "diff-ids": {"rootfs": {"type": "layers", "diff_ids": {"0": "x"}}},
}


@pytest.mark.parametrize("form", [*BAD_CONFIGS, "list"])
@pytest.mark.parametrize("has_recipe", [False, True])
def test_malformed_image_stops_neither_plan_nor_wave_of_others(yard, form, has_recipe, monkeypatch):
    yard.push("base/debian", "debian 1")
    yard.push("shop/bad", "bad", on="base/debian")
    yard.push("shop/static", "static", on="base/debian")
    if has_recipe:
        Recipe.objects.create(
            repository=dock.repository("shop/bad"), revision=1, containerfile="FROM base/debian\n", author=yard.owner,
            base_references=["base/debian"],
        )  # fmt: skip
        Recipe.objects.update(created_at="2001-01-01T00:00Z")
    bad = yard.tag("shop/bad")
    read = yard.shelf.get_blob

    def serve(repository, digest, **more):
        content = read(repository, digest, **more)
        if repository != "shop/bad" or not content.startswith(b"{"):
            return content
        return b"[1]" if form == "list" else json.dumps(json.loads(content) | BAD_CONFIGS[form]).encode()

    yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    monkeypatch.setattr(yard.shelf, "get_blob", serve)
    built = []

    def build(request, client, **more):
        built.append(request.repository)
        raise BuildFailed("exit 1")

    monkeypatch.setattr(buildah, "build", build)
    wave = yard.wave()
    if not has_recipe:
        assert [row["repository"] for row in wave.skipped] == ["shop/bad"]
        assert list(shape(wave)) == ["shop/static"]
    else:
        assert "cannot be read" in wave.jobs.get(repository__name="shop/bad", method="build").method_reason
    yard.settle()
    assert wave.jobs.get(repository__name="shop/static").state == "done"
    assert (yard.tag("shop/bad"), built) == (bad, ["shop/bad"] if has_recipe else [])


@pytest.mark.parametrize("missing", ["manifest", "layer"])
def test_image_is_built_when_its_old_base_is_gone_from_the_registry(yard, missing, monkeypatch):
    old = yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    Recipe.objects.create(
        repository=dock.repository("shop/static"), revision=1, containerfile="FROM base/debian\n", author=yard.owner,
        base_references=["base/debian"],
    )  # fmt: skip
    Recipe.objects.update(created_at="2001-01-01T00:00Z")
    yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    if missing == "manifest":
        del yard.shelf.manifests["base/debian"][old.digest]
    else:
        del yard.shelf.blobs["base/debian"][old.layers.get().digest]
    built = []

    def build(request, client, **more):
        built.append(request.repository)
        raise BuildFailed("exit 1")

    monkeypatch.setattr(buildah, "build", build)
    wave = yard.wave()
    assert wave.jobs.get().method == "build"
    yard.settle()
    assert (built, wave.jobs.get().problem) == (["shop/static"], "exit 1")


def test_lost_lineage_does_not_cause_a_second_rebuild(yard):
    yard.four_levels()
    yard.push("base/debian", "debian 2")
    yard.wave()
    yard.settle()
    derive(list(Image.objects.values_list("pk", flat=True)))
    with pytest.raises(planning.NothingToRebuild, match="nothing to rebuild"):
        planning.plan_wave("base/debian:latest", actor=yard.owner)
