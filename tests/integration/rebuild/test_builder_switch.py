"""The embedded builder is off until an admin turns it on, for a repository or a team. A rebase does not need it."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import Conflict, NotFound, NotPermitted
from lifecycle.rebuild import planning, queries, services
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, Recipe
from lifecycle.rebuild.refusals import why_not_build, why_not_confirm
from lifecycle.rebuild.types import BuilderOff
from lifecycle.registry.models import Repository
from tests.factories import dock
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin():
    return User.objects.create_user("harbour-admin", password="dock-side-pass", is_superuser=True)


@pytest.fixture
def team():
    made = dock.team("shop")
    BuilderPermit.objects.all().delete()
    return made


@pytest.fixture
def owner(team):
    return dock.user("owner", "owner", of=team)


def browser(user):
    client = Client()
    client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def actions():
    rows = AuditEvent.objects.filter(action__startswith="builder.").order_by("pk")
    return list(rows.values_list("action", "repository"))


def test_builder_is_off_until_an_admin_turns_it_on_for_a_team(admin, owner, team):
    api, other = dock.repository("shop/api"), dock.repository("base/debian", dock.team("base"))
    BuilderPermit.objects.all().delete()
    assert str(why_not_build(api)) == (
        "The embedded builder is off for shop/api. Ask an admin (harbour-admin) to turn it on."
    )
    services.turn_builder_on(actor=admin, team="shop")
    services.turn_builder_on(actor=admin, team="shop")
    assert why_not_build(api) is None
    assert why_not_build(other) is not None
    assert queries.repositories_with_builder({api.pk, other.pk}) == {api.pk}
    services.turn_builder_off(actor=admin, team="shop")
    services.turn_builder_off(actor=admin, team="shop")
    assert why_not_build(api) is not None
    assert actions() == [("builder.turned_on", ""), ("builder.turned_off", "")]


def test_builder_for_one_repository_leaves_the_others_of_the_team_off(admin, team):
    dock.user("harbour-admin", "viewer", of=team)
    api, web = dock.repository("shop/api"), dock.repository("shop/web")
    services.turn_builder_on(actor=admin, repository_id=api.pk)
    assert (why_not_build(api), why_not_build(web) is None) == (None, False)
    BuilderPermit.objects.create(team=team, turned_on_by=admin)
    with pytest.raises(Conflict, match="on for the whole team shop"):
        services.turn_builder_off(actor=admin, repository_id=api.pk)
    BuilderPermit.objects.filter(team=team).delete()
    services.turn_builder_off(actor=admin, repository_id=api.pk)
    assert why_not_build(api) is not None
    assert actions() == [("builder.turned_on", "shop/api"), ("builder.turned_off", "shop/api")]


def test_only_an_admin_switches_the_builder(admin, owner, team):
    api = dock.repository("shop/api")
    for switch in (services.turn_builder_on, services.turn_builder_off):
        for scope in ({"team": "shop"}, {"repository_id": api.pk}):
            with pytest.raises(NotPermitted, match="Only admins"):
                switch(actor=owner, **scope)
            with pytest.raises(NotFound):
                switch(actor=dock.user("stranger"), **scope)
    assert (BuilderPermit.objects.count(), actions()) == (0, [])
    services.turn_builder_on(actor=admin, team="shop")
    assert BuilderPermit.objects.get().turned_on_by == admin


@pytest.fixture
def derived(team, owner):
    """An image of a moved base that cannot be rebased, because its recipe is newer, and the wave that rebuilds it."""
    old, new = dock.image("base old"), dock.image("base new")
    base, api = dock.repository("shop/base"), dock.repository("shop/api")
    dock.push(base, old, "12")
    image = dock.image("api")
    dock.push(api, image, "latest")
    dock.derive(old, image)
    Recipe.objects.create(repository=api, revision=1, containerfile="FROM shop/base:12", author=owner,
                          base_references=["shop/base:12"])  # fmt: skip
    dock.push(base, new, "12")
    return api


@pytest.fixture
def _registry(monkeypatch):
    answer_with(InMemoryRegistry(), monkeypatch)


@pytest.mark.usefixtures("_registry")
def test_plan_skips_what_must_be_built_and_says_who_can_change_it(admin, owner, derived):
    with pytest.raises(planning.NothingToRebuild) as refusal:
        planning.plan_wave("shop/base:12", actor=owner)
    (reason,) = refusal.value.details["reasons"]
    assert reason.startswith("shop/api: The image cannot be rebased: ")
    assert reason.endswith("The embedded builder is off for shop/api. Ask an admin (harbour-admin) to turn it on.")
    services.turn_builder_on(actor=admin, team="shop")
    again = planning.plan_wave("shop/base:12", actor=owner)
    assert ([job.method for job in again.jobs.all()], again.skipped) == (["build"], [])


@pytest.mark.usefixtures("_registry")
def test_existing_plan_says_that_the_builder_is_off_and_cannot_be_confirmed(admin, owner, derived):
    services.turn_builder_on(actor=admin, team="shop")
    wave = planning.plan_wave("shop/base:12", actor=owner)
    services.turn_builder_off(actor=admin, team="shop")
    text = browser(owner).get(reverse("lifecycle:wave", args=[wave.pk])).content.decode()
    assert "The embedded builder is off for shop/api. Ask an admin (harbour-admin) to turn it on." in text
    with pytest.raises(BuilderOff, match="plan again"):
        services.confirm_wave(wave.pk, actor=owner)
    wave.jobs.update(method=RebuildJob.Method.REBASE)  # a rebase runs nothing
    assert why_not_confirm(owner, wave) is None
    wave.jobs.update(method=RebuildJob.Method.BUILD)
    services.turn_builder_on(actor=admin, team="shop")
    assert services.confirm_wave(wave.pk, actor=owner).state == "running"


def test_pages_show_the_switch_to_admins_and_the_reason_to_others(admin, owner, team):
    dock.user("harbour-admin", "viewer", of=team)
    api = dock.repository("shop/api")
    tab = reverse("lifecycle:repository", args=["shop", "shop/api"]) + "?tab=recipe"
    reason = "The embedded builder is off for shop/api. Ask an admin (harbour-admin) to turn it on."
    assert reason in browser(owner).get(tab).content.decode()
    assert "Turn on for this repository" not in browser(owner).get(tab).content.decode()
    assert "Turn on for this repository" in browser(admin).get(tab).content.decode()
    answer = browser(admin).post(reverse("lifecycle:repository-builder", args=[api.pk]), {"turn": "on"})
    assert answer["Location"] == tab
    page = browser(owner).get(reverse("lifecycle:team", args=["shop"]) + "?tab=builder").content.decode()
    assert "Off for team shop, except for the repositories below." in " ".join(page.split())
    assert "Turn on for team shop" not in page
    browser(admin).post(reverse("lifecycle:team-builder", args=["shop"]), {"turn": "on"})
    text = " ".join(browser(owner).get(tab).content.decode().split())
    assert "On for this repository, turned on by <b>harbour-admin</b>" in text
    Repository.objects.get(pk=api.pk).builder_permit.delete()
    text = " ".join(browser(owner).get(tab).content.decode().split())
    assert "On for team shop, turned on by <b>harbour-admin</b>" in text
    browser(admin).post(reverse("lifecycle:team-builder", args=["shop"]), {"turn": "off"})
    assert why_not_build(api) is not None
