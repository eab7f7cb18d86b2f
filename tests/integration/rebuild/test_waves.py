"""Planning order and rights, single confirmation, and failures that block only derived images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.db import OperationalError, transaction

from accounts.models import Role
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition, NotFound, NotPermitted
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.rebuild import access, bases, graph, planning, services
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Registry, Repository
from tests.factories import dock

pytestmark = pytest.mark.django_db
State = RebuildJob.State


def recipe(where, author, *references, tag="latest"):
    revision = where.recipes.count() + 1
    return Recipe.objects.create(
        repository=where, revision=revision, containerfile="FROM scratch", base_references=list(references), tag=tag,
        author=author,
    )  # fmt: skip


@pytest.fixture
def yard():
    """base -> runtime -> (api, web). api is also built on base directly. The base's tag was moved."""
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
    return set(Job.objects.filter(kind="rebuild", state="waiting").values_list("subject_id", flat=True))


def started(yard):
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    return services.confirm_wave(wave.pk, actor=yard.owner)


def test_plan_uses_longest_path_as_level_and_starts_nothing(yard):
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert levels(wave) == {"shop/runtime": 1, "shop/api": 2, "shop/web": 2}
    assert list(job_of(wave, "api").parents.all()) == [job_of(wave, "runtime")]
    assert (wave.state, wave.old_base, queued()) == ("planned", yard.old, set())


def test_unreadable_recipe_does_not_stop_the_plan(yard):
    recipe(yard.places["web"], yard.owner, ":12")  # stored before references were checked
    assert levels(planning.plan_wave("shop/base:12", actor=yard.owner)) == {
        "shop/runtime": 1, "shop/api": 2,
    }  # fmt: skip


def test_plan_names_only_images_the_requester_can_see(yard):
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
def test_viewer_cannot_act_on_a_wave(yard, act):
    viewer = dock.user("viewer", "viewer", of=yard.team)
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert access.wave_for(viewer, wave.pk) == wave
    with pytest.raises(NotPermitted):
        getattr(services, act)(wave.pk, actor=viewer)
    with pytest.raises(NotFound):
        getattr(services, act)(wave.pk, actor=dock.user("stranger"))
    wave.refresh_from_db()
    assert (wave.state, queued()) == ("planned", set())


def test_right_on_base_alone_does_not_confirm_derived_images(yard):
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    narrow = dock.user("narrow", "viewer", of=yard.team)
    role = Role.objects.get(slug="owner")
    RoleGrant.objects.create(user=narrow, role=role, team=yard.team, repository_pattern="shop/base", environment=None)
    with pytest.raises(NotPermitted):
        services.confirm_wave(wave.pk, actor=narrow)


def test_confirm_queues_only_first_level_and_only_once(yard):
    wave = started(yard)
    assert queued() == {job_of(wave, "runtime").pk}
    with pytest.raises(IllegalTransition):
        services.confirm_wave(wave.pk, actor=yard.owner)
    assert Job.objects.filter(kind="rebuild").count() == 1


def test_failure_blocks_derived_images_but_not_siblings(yard):
    wave = started(yard)
    runtime = job_of(wave, "runtime")
    services.begin(runtime.pk, node_id="n1")
    services.built(runtime.pk, dock.image("runtime new"), method="build", reason="")
    services.finish(runtime.pk)
    assert {job_of(wave, "api").pk, job_of(wave, "web").pk} <= queued()
    services.fail(job_of(wave, "api").pk, why="exit 1")
    wave.refresh_from_db()
    assert (wave.state, job_of(wave, "web").state) == ("running", "waiting")


def test_retry_repeats_failed_and_blocked_jobs(yard):
    wave = started(yard)
    services.fail(job_of(wave, "runtime").pk, why="exit 1")
    wave.refresh_from_db()
    assert [job.state for job in wave.jobs.all()] == ["failed", "blocked", "blocked"]
    assert wave.state == "failed"
    services.retry_wave(wave.pk, actor=yard.owner)
    assert {job.state for job in wave.jobs.all()} == {"waiting"}


def test_cancel_ends_waiting_jobs_and_late_worker_changes_nothing(yard):
    wave = started(yard)
    services.cancel_wave(wave.pk, actor=yard.owner)
    services.begin(job_of(wave, "runtime").pk, node_id="n1")
    services.fail(job_of(wave, "runtime").pk, why="late")
    assert {job.state for job in wave.jobs.all()} == {"cancelled"}


def test_recipe_is_planned_by_the_tag_it_names(yard):
    """web is built on an image of the base, but its recipe names another tag. api names the tag that moved."""
    recipe(yard.places["runtime"], yard.owner, "shop/base:11")
    recipe(yard.places["api"], yard.owner, "registry.example:5000/shop/base:12", "shop/runtime")
    recipe(yard.places["web"], yard.owner, f"shop/base@{yard.old.digest}")
    dock.derive(yard.old, yard.images["web"])
    dock.push(yard.places["base"], dock.image("eleven"), "11")
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert levels(wave) == {"shop/api": 1}
    assert wave.skipped == [
        {"repository": "shop/runtime", "reason": "Its recipe does not use shop/base:12."},
        {"repository": "shop/web", "reason": "Its recipe does not use shop/base:12."},
    ]


def test_images_of_another_tag_are_not_planned(yard):
    eleven = dock.image("eleven")
    dock.push(yard.places["base"], eleven, "11")
    other, image = dock.repository("shop/other", yard.team), dock.image("other")
    dock.push(other, image, "latest")
    recipe(other, yard.owner)
    dock.derive(eleven, image)
    assert "shop/other" not in levels(planning.plan_wave("shop/base:12", actor=yard.owner))
    dock.push(yard.places["base"], dock.image("eleven new"), "11")
    assert levels(planning.plan_wave("shop/base:11", actor=yard.owner)) == {"shop/other": 1}


def test_image_that_files_are_copied_from_is_a_parent(yard):
    tools = dock.repository("shop/tools", yard.team)
    dock.push(tools, dock.image("tools"), "latest")
    recipe(tools, yard.owner, "shop/base:12")
    recipe(yard.places["runtime"], yard.owner, "shop/base:12")
    recipe(yard.places["web"], yard.owner, "shop/runtime", "shop/tools")
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert levels(wave)["shop/web"] == 2
    assert {job.repository.name for job in job_of(wave, "web").parents.all()} == {"shop/runtime", "shop/tools"}


def test_circular_recipes_are_skipped_and_do_not_block_the_rest(yard):
    recipe(yard.places["runtime"], yard.owner, "shop/base:12", "shop/web")
    recipe(yard.places["web"], yard.owner, "shop/runtime")
    recipe(yard.places["api"], yard.owner, "shop/base:12")
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert levels(wave) == {"shop/api": 1}
    reason = "Its bases form a cycle."
    assert wave.skipped == [{"repository": name, "reason": reason} for name in ("shop/runtime", "shop/web")]


def test_images_are_reached_through_an_already_rebuilt_parent(yard):
    """A user rebuilt runtime. api and web are still built on the old one."""
    fresh = dock.image("runtime fresh")
    dock.push(yard.places["runtime"], fresh, "latest")
    dock.derive(yard.new, fresh)
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert levels(wave) == {"shop/api": 1, "shop/web": 1}


def test_tags_of_rebuild_results_are_not_rebuilt(yard):
    dock.push(yard.places["web"], dock.image("result"), "rebuild-0123456789abcdef")
    yard.places["web"].tags.filter(name="latest").update(name="1.0")
    recipe(yard.places["web"], yard.owner, tag="gone")
    assert job_of(planning.plan_wave("shop/base:12", actor=yard.owner), "web").tag == "1.0"


def test_multi_platform_index_is_skipped(yard):
    arm = dock.image("web arm", architecture="arm64")
    dock.push(yard.places["web"], dock.index("web index", yard.images["web"], arm), "latest")
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert "shop/web" not in levels(wave)
    assert [row["reason"][:35] for row in wave.skipped] == ["The image has several platforms, bu"]


def test_plan_is_empty_without_any_rebuild_right(yard):
    viewer = dock.user("viewer", "viewer", of=yard.team)
    with pytest.raises(NotPermitted):
        planning.plan_wave("shop/base:12", actor=viewer)
    narrow = dock.user("narrow", "viewer", of=yard.team)
    role = Role.objects.get(slug="owner")
    RoleGrant.objects.create(user=narrow, role=role, team=yard.team, repository_pattern="shop/web", environment=None)
    with pytest.raises(planning.NothingToRebuild, match="shop/api: You need image") as refusal:
        planning.plan_wave("shop/base:12", actor=narrow)  # web is built on runtime, which he cannot rebuild
    reasons = refusal.value.details["reasons"]
    assert [reason.partition(":")[0] for reason in reasons] == ["shop/api", "shop/runtime", "shop/web"]
    assert not RebuildWave.objects.exists()
    assert levels(planning.plan_wave("shop/base:12", actor=yard.owner)).keys() > {
        "shop/web"
    }  # the other user's plan is not reused


def test_watch_shows_why_every_image_is_skipped_and_plans_later(yard):
    narrow = dock.user("narrow", "viewer", of=yard.team)
    role = Role.objects.get(slug="owner")
    RoleGrant.objects.create(user=narrow, role=role, team=yard.team, repository_pattern="shop/web", environment=None)
    watch = UpstreamWatch.objects.create(
        repository=Repository.objects.get(name="shop/base"), tag="12", last_digest=dock.sha("old"), created_by=narrow
    )
    with pytest.raises(planning.NothingToRebuild):
        planning.propose(watch, actor=narrow)
    watch.refresh_from_db()
    assert watch.last_digest == dock.sha("old")  # the next attempt looks again
    assert planning.propose(watch, actor=yard.owner) is not None


def test_identical_plan_is_reused(yard):
    first = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert planning.plan("shop/base:12", actor=dock.user("second", "owner", of=yard.team)) == (first, False)
    recipe(yard.places["web"], yard.owner)
    assert planning.plan("shop/base:12", actor=yard.owner)[1]


def test_images_of_a_running_wave_are_not_planned_again(yard):
    wave = started(yard)
    assert planning.plan("shop/base:12", actor=yard.owner) == (wave, False)
    late, image = dock.repository("shop/late", yard.team), dock.image("late")
    dock.push(late, image, "latest")
    recipe(late, yard.owner)
    dock.derive(yard.old, image)
    second = planning.plan_wave("shop/base:12", actor=yard.owner)
    assert levels(second) == {"shop/late": 1}
    assert {row["reason"] for row in second.skipped} == {f"{wave} is rebuilding it."}


@pytest.mark.parametrize("count", [1, 5])
def test_wide_level_is_read_with_same_number_of_queries(yard, count, django_assert_max_num_queries):
    for number in range(count):
        place, image = dock.repository(f"shop/wide{number}", yard.team), dock.image(f"wide {number}")
        dock.push(place, image, "latest")
        recipe(place, yard.owner)
        dock.derive(yard.images["web"], image)
    with django_assert_max_num_queries(40):
        reach = graph.reach_of(yard.places["base"], {"12"}, [yard.new])
    assert len(reach.nodes) == 3 + count


def test_claimed_job_that_has_not_started_is_not_queued_again(yard):
    static = dock.repository("shop/static", yard.team)
    image = dock.image("static")
    dock.push(static, image, "latest")
    recipe(static, yard.owner)
    dock.derive(yard.old, image)
    wave = started(yard)
    taken = jobs.claim(Job.objects.get(subject_id=job_of(wave, "static").pk).pk, worker="w")
    services.begin(job_of(wave, "runtime").pk, node_id="n1")
    services.unchanged(job_of(wave, "runtime").pk, reason="No base of it changed.")
    runs = list(Job.objects.filter(kind="rebuild").values_list("subject_id", flat=True))
    assert runs.count(job_of(wave, "static").pk) == 1
    assert len(runs) == len(set(runs)) == 4
    Job.objects.filter(pk=taken.pk).update(state="failed", lease_until=None, finished_at=clock.now())
    services.resume_waves()
    assert queued() >= {job_of(wave, "static").pk}


def test_image_without_recipe_gets_no_base_hidden_from_its_rebuilder(yard):
    """The base was rebuilt before the wave, in another team's repository that the user may not see."""
    job = job_of(started(yard), "runtime")
    elsewhere = dock.repository("shop/elsewhere", yard.team)
    RebuildWave.objects.update(repository=elsewhere)  # a wave that does not rebuild the image's own base
    job = RebuildJob.objects.get(pk=job.pk)
    hidden, open_to_all = dock.repository("aaa/hidden"), dock.repository("aaa/open")
    for place in (hidden, open_to_all):
        dock.push(place, yard.old, "12")
        dock.push(place, dock.image(f"of {place.name}"), "12")
    role = Role.objects.get(slug="owner")
    RoleGrant.objects.create(user=yard.owner, role=role, team=dock.team("aaa"), repository_pattern="aaa/open")
    assert bases.recorded_base(job, yard.owner) == {"shop/base": f"shop/base@{yard.new.digest}"}
    yard.places["base"].tags.update(image=yard.old)  # not rebuilt: another team's image is used if it is visible
    assert list(bases.recorded_base(job, yard.owner)) == ["aaa/open"]
    Repository.objects.filter(pk=open_to_all.pk).update(
        registry=Registry.objects.create(name="x", endpoint="https://x")
    )
    assert bases.recorded_base(job, yard.owner) == {}


@pytest.mark.django_db(transaction=True)
def test_second_confirmation_waits_for_first_and_is_refused(yard, in_other_connection):
    wave = planning.plan_wave("shop/base:12", actor=yard.owner)
    second = dock.user("second", "owner", of=yard.team)
    with transaction.atomic():
        access.lock_wave(yard.owner, wave.pk)
        with pytest.raises(OperationalError, match="lock timeout"):
            in_other_connection(lambda: services.confirm_wave(wave.pk, actor=second))
    services.confirm_wave(wave.pk, actor=yard.owner)
    with pytest.raises(IllegalTransition):
        services.confirm_wave(wave.pk, actor=second)
    assert Job.objects.filter(kind="rebuild").count() == 1
    assert AuditEvent.objects.filter(action="rebuild.confirmed").count() == 1


def test_protected_tag_is_rebuilt_only_with_amend_right(yard):
    creator = dock.user("creator", "creator", of=yard.team)
    wave = planning.plan_wave("shop/base:12", actor=creator)
    Repository.objects.filter(pk=yard.places["web"].pk).update(protected_tags=["la*"])
    with pytest.raises(NotPermitted, match=r"image\.amend"):
        services.confirm_wave(wave.pk, actor=creator)
    Repository.objects.filter(pk=yard.places["web"].pk).update(protected_tags=["1.*"])
    services.confirm_wave(wave.pk, actor=creator)
    Repository.objects.filter(pk=yard.places["web"].pk).update(protected_tags=["la*"])
    with pytest.raises(NotPermitted):
        services.require_right(job_of(wave, "web"), creator)
    services.require_right(job_of(wave, "web"), yard.owner)
