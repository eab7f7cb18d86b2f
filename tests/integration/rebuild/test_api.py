"""Recipes, watches and waves over the API. The rules of the services are in test_waves.py."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import pytest
from django.test import Client

from accounts import tokens
from accounts.models import Role
from accounts.verbs import Verb
from lifecycle.authority import services as authority
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.environments.models import Slot
from lifecycle.jobs.models import Job
from lifecycle.rebuild import contexts
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Repository
from tests.factories import dock
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db
TEXT = "FROM shop/base:12\nRUN true\n"


class Caller:
    """An API client with the token of one user."""

    def __init__(self, user):
        self.headers = {"Authorization": f"Bearer {tokens.create_token(user, kind='pat', name='t')[1]}"}

    def __call__(self, method, path, body=None, **query):
        more = {} if method in {"get", "delete"} else {"content_type": "application/json"}
        return getattr(Client(), method)(f"/api/v1/{path}", body or query, headers=self.headers, **more)


@pytest.fixture
def yard():
    """base -> runtime -> (api, web). The base's tag was moved."""
    team = dock.team("shop")
    owner = dock.user("owner", "owner", of=team)
    old = dock.image("base old")
    places = {name: dock.repository(f"shop/{name}", team) for name in ("base", "runtime", "api", "web")}
    images = {name: dock.image(name) for name in ("runtime", "api", "web")}
    dock.push(places["base"], old, "12")
    for name, image in images.items():
        dock.push(places[name], image, "latest")
        Recipe.objects.create(repository=places[name], revision=1, containerfile="FROM scratch", author=owner)
    dock.derive(old, images["runtime"])
    dock.derive(images["runtime"], images["api"])
    dock.derive(images["runtime"], images["web"])
    new = dock.image("base new")
    dock.push(places["base"], new, "12")
    return SimpleNamespace(team=team, owner=owner, old=old, new=new, places=places, images=images, call=Caller(owner))


@pytest.fixture
def registry(monkeypatch):
    fake = InMemoryRegistry()
    answer_with(fake, monkeypatch)
    return fake


def recipe_body(**more):
    return {"containerfile": TEXT, "context": {"app/a.txt": base64.b64encode(b"a").decode()}, **more}


def test_put_of_same_recipe_creates_no_new_revision(yard, registry):
    path = f"repositories/{yard.places['base'].pk}/recipe/"
    assert yard.call("get", path).status_code == 404
    first = yard.call("put", path, recipe_body(build_args={"A": "1"}, tag="12"))
    assert first.status_code == 200
    assert first.json() | {"context_digest": "", "created_at": ""} == {
        "repository": "shop/base", "revision": 1, "containerfile": TEXT, "context_digest": "",
        "build_args": {"A": "1"}, "base_references": ["shop/base:12"], "tag": "12", "author": "owner", "created_at": "",
    }  # fmt: skip
    document = registry.get_manifest("shop/base", first.json()["context_digest"])
    assert contexts.ARTIFACT_TYPE.encode() in document.content
    assert yard.call("put", path, recipe_body(build_args={"A": "1"}, tag="12")).json() == first.json()
    assert yard.call("put", path, recipe_body(tag="12")).json()["revision"] == 2
    assert yard.call("get", path).json()["revision"] == 2


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (recipe_body(revision=9), 400, "invalid"),
        (recipe_body(context={"a": "%%%"}), 400, "invalid"),
        (recipe_body(context={"../a": "YQ=="}), 400, "malformed"),
        (recipe_body(build_args={"A B": "1"}), 400, "malformed"),
        (recipe_body(tag="a b"), 400, "malformed_reference"),
        ({"containerfile": "RUN true"}, 400, "malformed"),
        ({"containerfile": "ARG BASE\nFROM ${BASE}:12\n"}, 400, "malformed"),
        ({"containerfile": f"FROM {'h' * 500}.example/shop/base:12\n"}, 400, "malformed"),
        ({}, 400, "invalid"),
    ],
)
def test_invalid_recipe_is_refused_with_a_problem_and_stores_nothing(yard, registry, body, status, code):
    answer = yard.call("put", f"repositories/{yard.places['base'].pk}/recipe/", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert not Recipe.objects.filter(repository=yard.places["base"]).exists()


def test_recipe_needs_recipe_manage_and_no_other_verb_replaces_it(yard, registry):
    def holder(name, *verbs):
        role = Role.objects.create(slug=name, name=name, verbs=["image.view", *verbs])
        person = dock.user(name)
        RoleGrant.objects.create(user=person, team=yard.team, role=role, repository_pattern="*")
        return Caller(person)

    others = holder("others", *(verb.value for verb in Verb if verb not in (Verb.IMAGE_VIEW, Verb.RECIPE_MANAGE)))
    keeper, path = holder("keeper", "recipe.manage"), f"repositories/{yard.places['base'].pk}/recipe/"
    refused = others("put", path, recipe_body())
    assert (refused.status_code, "You need recipe.manage" in refused.json()["detail"]) == (403, True)
    assert keeper("put", path, recipe_body()).status_code == 200
    assert others("put", path, recipe_body(tag="13")).status_code == 403
    assert keeper("put", path, recipe_body(tag="13")).status_code == 200


def test_recipe_is_refused_in_promotion_target(yard, registry):
    environment = authority.create_environment(yard.team, actor=yard.owner, slug="dev", name="dev", prefix="dev")
    target = Repository.objects.create(
        registry=dock.registry(), team=yard.team, name="dev/shop/api", family="shop/api", source=yard.places["api"],
        environment=environment,
    )  # fmt: skip
    answer = yard.call("put", f"repositories/{target.pk}/recipe/", recipe_body())
    assert (answer.status_code, list(registry.repositories())) == (400, [])


def test_tag_is_watched_once_and_can_be_unwatched(yard):
    path = f"repositories/{yard.places['base'].pk}/watches/"
    first = yard.call("post", path, {"tag": "12"})
    assert (first.status_code, first.json()["last_digest"]) == (201, yard.new.digest)
    assert yard.call("post", path, {"tag": "12"}).json() == first.json()
    assert yard.call("post", path, {"tag": "a b"}).status_code == 400
    assert [row["id"] for row in yard.call("get", path).json()["results"]] == [first.json()["id"]]
    other = f"repositories/{yard.places['api'].pk}/watches/{first.json()['id']}/"
    assert yard.call("delete", other).status_code == 404
    assert UpstreamWatch.objects.count() == 1
    assert yard.call("delete", f"{path}{first.json()['id']}/").status_code == 204
    assert not UpstreamWatch.objects.exists()


def test_wave_is_planned_and_confirmed(yard):
    made = yard.call("post", "rebuild-waves/", {"base": "shop/base:12"})
    assert made.status_code == 201
    wave = made.json()
    assert (wave["state"], wave["base"], wave["new_digest"]) == ("planned", "shop/base", yard.new.digest)
    assert [(job["level"], job["repository"], job["parents"]) for job in wave["jobs"]] == [
        (1, "shop/runtime", []),
        (2, "shop/api", ["shop/runtime"]),
        (2, "shop/web", ["shop/runtime"]),
    ]
    again = yard.call("post", "rebuild-waves/", {"base": f"shop/base@{yard.new.digest}"})
    assert (again.status_code, again.json()["id"]) == (200, wave["id"])
    assert not Job.objects.filter(kind="rebuild").exists()
    path = f"rebuild-waves/{wave['id']}/"
    confirmed = yard.call("post", f"{path}confirm/")
    assert (confirmed.status_code, confirmed.json()["state"]) == (202, "running")
    twice = yard.call("post", f"{path}confirm/")
    assert (twice.status_code, twice.json()["code"]) == (409, "illegal_transition")
    assert yard.call("get", path).json() == confirmed.json()
    assert yard.call("get", "rebuild-waves/", state="running").json()["results"][0]["jobs_by_state"] == {"waiting": 3}
    assert yard.call("get", "rebuild-waves/", state="failed").json()["results"] == []
    cancelled = yard.call("post", f"{path}cancel/")
    assert (cancelled.status_code, cancelled.json()["jobs_by_state"]) == (200, {"cancelled": 3})
    assert yard.call("post", f"{path}retry/").status_code == 409


@pytest.mark.parametrize("body", [{}, {"base": "shop/base:12", "start": True}, {"base": ""}])
def test_invalid_plan_is_refused_by_field(yard, body):
    answer = yard.call("post", "rebuild-waves/", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert not RebuildWave.objects.exists()


@pytest.mark.parametrize("base", ["shop/none", "shop/base:99", "shop/base@sha256:" + "e" * 64])
def test_unknown_base_is_not_planned(yard, base):
    assert yard.call("post", "rebuild-waves/", {"base": base}).status_code == 404


def test_reader_sees_only_visible_images_of_a_wave(yard):
    wave = yard.call("post", "rebuild-waves/", {"base": "shop/base:12"}).json()
    RebuildWave.objects.filter(pk=wave["id"]).update(skipped=[{"repository": "shop/web", "reason": "x"}])
    narrow = dock.user("narrow")
    for pattern in ("shop/base", "shop/api"):
        RoleGrant.objects.create(
            user=narrow, team=yard.team, role=Role.objects.get(slug="viewer"), repository_pattern=pattern
        )
    call, path = Caller(narrow), f"rebuild-waves/{wave['id']}/"
    shown = call("get", path).json()
    assert [(job["repository"], job["parents"]) for job in shown["jobs"]] == [("shop/api", [])]
    assert (shown["jobs_by_state"], shown["skipped"]) == ({"waiting": 1}, [])
    assert call("get", "rebuild-waves/").json()["results"][0]["jobs_by_state"] == {"waiting": 1}
    assert "runtime" not in str(shown)
    jobs = {job["repository"]: job["id"] for job in wave["jobs"]}
    assert call("get", f"{path}jobs/{jobs['shop/api']}/log/").status_code == 200
    assert call("get", f"{path}jobs/{jobs['shop/runtime']}/log/").status_code == 404


def test_log_is_read_line_by_line(yard):
    wave = yard.call("post", "rebuild-waves/", {"base": "shop/base:12"}).json()
    path = f"rebuild-waves/{wave['id']}/jobs/{wave['jobs'][0]['id']}/log/"
    empty = yard.call("get", path).json()
    assert empty == {"lines": [], "after": 0, "is_final": False}
    runs = [
        Job.objects.create(kind=kind, subject_id=wave["jobs"][0]["id"], actor=yard.owner)
        for kind in ("rebuild", "rebuild", "scan")
    ]
    for number, run in enumerate(runs):
        run.log_lines.create(text=f"line {number}")
    read = yard.call("get", path).json()
    assert [line["text"] for line in read["lines"]] == ["line 0", "line 1"]
    assert yard.call("get", path, after=read["lines"][0]["id"]).json()["lines"] == read["lines"][1:]
    RebuildJob.objects.update(state="failed", finished_at=clock.now())
    end = yard.call("get", path, after=read["after"]).json()
    assert end == {"lines": [], "after": read["after"], "is_final": True}
    assert yard.call("get", path, after="x").status_code == 400


def test_result_is_offered_where_an_older_state_is_deployed(yard):
    """Also where an image before the rebuilt one is still deployed, because its rebuild was never promoted."""
    slots = {}
    for slug, image in (("dev", yard.images["runtime"]), ("staging", dock.image("runtime before")), ("lab", yard.old)):
        environment = authority.create_environment(
            yard.team, actor=yard.owner, slug=slug, name=slug, prefix=slug, required_approvals=0
        )
        slots[slug] = Slot.objects.create(
            repository=yard.places["runtime"], environment=environment, image=image, tag="1.0"
        )
    dock.push(yard.places["runtime"], slots["staging"].image, "latest")
    dock.push(yard.places["runtime"], yard.images["runtime"], "latest")
    wave = yard.call("post", "rebuild-waves/", {"base": "shop/base:12"}).json()
    assert [job["promote_to"] for job in wave["jobs"]] == [[], [], []]
    result = dock.image("result")
    dock.push(yard.places["runtime"], result, "latest")
    runtime = RebuildJob.objects.filter(repository=yard.places["runtime"])
    runtime.update(state="done", new_image=result, finished_at=clock.now())
    shown = yard.call("get", f"rebuild-waves/{wave['id']}/").json()
    assert {job["repository"]: job["promote_to"] for job in shown["jobs"]} == {
        "shop/runtime": [
            {"team": "shop", "environment": "dev", "tag": "1.0"},
            {"team": "shop", "environment": "staging", "tag": "1.0"},
        ],
        "shop/api": [],
        "shop/web": [],
    }  # fmt: skip
    body = {"digest": result.digest, "repository": "shop/runtime", "environment": "dev", "reason": "patched"}
    made = yard.call("post", "promotions/", body).json()
    assert (made["kind"], made["digest"]) == ("rebuild-refresh", result.digest)
    other = yard.call("post", "promotions/", body | {"environment": "lab"}).json()
    assert other["kind"] == "forward"  # the image deployed there is not an older state of it
    Slot.objects.filter(pk=slots["dev"].pk).update(image=result)
    shown = yard.call("get", f"rebuild-waves/{wave['id']}/").json()
    assert [row["environment"] for row in shown["jobs"][0]["promote_to"]] == ["staging"]


@pytest.mark.parametrize("count", [1, 3])
def test_lists_and_waves_cost_same_queries_for_any_length(yard, count, django_assert_num_queries):
    for number in range(count):
        wave = RebuildWave.objects.create(
            repository=yard.places["base"], new_base=dock.image(f"new {number}"), planned_by=yard.owner
        )
    rows = [
        RebuildJob.objects.create(
            wave=wave, repository=yard.places["api"], old_image=dock.image(f"old {number}"), level=1, tag="latest",
            state="done", finished_at=clock.now(), new_image=yard.images["web"],
        )
        for number in range(count)
    ]  # fmt: skip
    rows[0].parents.set(rows[1:])
    yard.call("get", "rebuild-waves/")
    with django_assert_num_queries(3):  # token with grants, page, counts
        assert len(yard.call("get", "rebuild-waves/").json()["results"]) == count
    with django_assert_num_queries(9):  # token, wave twice, jobs, parents, lines by three, slots
        assert len(yard.call("get", f"rebuild-waves/{wave.pk}/").json()["jobs"]) == count
