"""Plans in the right order and within rights; confirmation once; a failure blocks only what stands on it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from accounts.models import Role
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import IllegalTransition, NotFound, NotPermitted
from lifecycle.jobs.models import Job, JobKind
from lifecycle.rebuild import access, planning, services
from lifecycle.rebuild.models import RebuildJob, Recipe
from tests.factories import dock

pytestmark = pytest.mark.django_db
State = RebuildJob.State


def recipe(where, author, tag="latest"):
    return Recipe.objects.create(repository=where, revision=1, containerfile="FROM scratch", tag=tag, author=author)


@pytest.fixture
def yard():
    """base -> runtime -> (api, web); api also stands on base directly. The base's tag was moved."""
    team = dock.team("shop")
    owner = dock.user("owner", "owner", of=team)
    old = dock.image("base old")
    places = {name: dock.repository(f"shop/{name}", team) for name in ("base", "runtime", "api", "web")}
    images = {"runtime": dock.image("runtime"), "api": dock.image("api"), "web": dock.image("web")}
    dock.push(places["base"], old, "12")
    for name, image in images.items():
        dock.push(places[name], image, "latest")
        recipe(places[name], owner)
    dock.derive(old, images["runtime"])
    dock.derive(images["runtime"], images["api"])
    dock.derive(images["runtime"], images["web"])
    dock.derive(old, images["api"], evidence=("declared",))
    new = dock.image("base new")
    dock.push(places["base"], new, "12")
    return SimpleNamespace(team=team, owner=owner, old=old, new=new, places=places, images=images)


def levels(wave):
    return {job.repository.name: job.level for job in wave.jobs.all()}


def job_of(wave, name):
    return wave.jobs.get(repository__name=f"shop/{name}")


def queued():
    return set(Job.objects.filter(kind=JobKind.REBUILD, state="waiting").values_list("subject_id", flat=True))


def started(yard):
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    return services.confirm_wave(wave.pk, actor=yard.owner)


def test_plan_takes_the_longest_way_as_level_and_starts_nothing(yard):
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert levels(wave) == {"shop/runtime": 1, "shop/api": 2, "shop/web": 2}
    assert list(job_of(wave, "api").parents.all()) == [job_of(wave, "runtime")]
    assert (wave.state, wave.old_base, queued()) == ("planned", yard.old, set())


def test_plan_names_nothing_that_its_asker_cannot_see(yard):
    other = dock.team("other")
    hidden, image = dock.repository("other/secret", other), dock.image("secret")
    dock.push(hidden, image, "latest")
    recipe(hidden, yard.owner)
    dock.derive(yard.old, image)
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert "secret" not in f"{levels(wave)} {wave.skipped}"
    with pytest.raises(NotFound):
        planning.plan_wave("shop/base:12", actor=dock.user("stranger"))


@pytest.mark.parametrize("act", ["confirm_wave", "cancel_wave", "retry_wave"])
def test_who_may_only_look_cannot_act_on_a_wave(yard, act):
    viewer = dock.user("viewer", "viewer", of=yard.team)
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert access.wave_for(viewer, wave.pk) == wave
    with pytest.raises(NotPermitted):
        getattr(services, act)(wave.pk, actor=viewer)
    with pytest.raises(NotFound):
        getattr(services, act)(wave.pk, actor=dock.user("stranger"))
    wave.refresh_from_db()
    assert (wave.state, queued()) == ("planned", set())


def test_the_right_over_the_base_alone_does_not_confirm_what_stands_on_it(yard):
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    narrow = dock.user("narrow", "viewer", of=yard.team)
    role = Role.objects.get(slug="owner")
    RoleGrant.objects.create(user=narrow, role=role, team=yard.team, repository_pattern="shop/base", environment=None)
    with pytest.raises(NotPermitted):
        services.confirm_wave(wave.pk, actor=narrow)


def test_confirm_queues_the_first_level_only_and_only_once(yard):
    wave = started(yard)
    assert queued() == {job_of(wave, "runtime").pk}
    with pytest.raises(IllegalTransition):
        services.confirm_wave(wave.pk, actor=yard.owner)
    assert Job.objects.filter(kind=JobKind.REBUILD).count() == 1


def test_failure_blocks_what_stands_on_it_and_siblings_go_on(yard):
    wave = started(yard)
    runtime = job_of(wave, "runtime")
    services.begin(runtime.pk, node_id="n1")
    services.built(runtime.pk, dock.image("runtime new"), method="build", reason="")
    services.finish(runtime.pk)
    assert {job_of(wave, "api").pk, job_of(wave, "web").pk} <= queued()
    services.fail(job_of(wave, "api").pk, why="exit 1")
    wave.refresh_from_db()
    assert (wave.state, job_of(wave, "web").state) == ("running", "waiting")


def test_retry_tries_again_what_failed_and_was_blocked(yard):
    wave = started(yard)
    services.fail(job_of(wave, "runtime").pk, why="exit 1")
    wave.refresh_from_db()
    assert [job.state for job in wave.jobs.all()] == ["failed", "blocked", "blocked"]
    assert wave.state == "failed"
    services.retry_wave(wave.pk, actor=yard.owner)
    assert {job.state for job in wave.jobs.all()} == {"waiting"}


def test_cancel_ends_what_waits_and_a_late_worker_changes_nothing(yard):
    wave = started(yard)
    services.cancel_wave(wave.pk, actor=yard.owner)
    services.begin(job_of(wave, "runtime").pk, node_id="n1")
    services.fail(job_of(wave, "runtime").pk, why="late")
    assert {job.state for job in wave.jobs.all()} == {"cancelled"}
