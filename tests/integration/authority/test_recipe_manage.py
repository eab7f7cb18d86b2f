"""The upgrade that adds `recipe.manage`: the built-in maintainer and owner get it, custom roles do not."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.db import connection

from accounts.models import Role
from accounts.queries import system_user
from accounts.verbs import BUILTIN_ROLES, Verb
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import differs, project
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.registry.services import ensure_managed_registry, ensure_repository
from tests.factories import dock

pytestmark = pytest.mark.django_db
ROLES = import_module("accounts.migrations.0004_recipe_manage")
ROWS = import_module("lifecycle.migrations.0016_recipe_manage")


def grant(name, role, **scope):
    user = dock.user(name)
    RoleGrant.objects.create(user=user, role=Role.objects.get(slug=role), team=dock.team("shop"), **scope)
    project(user)
    return user


def test_upgrade_gives_recipe_manage_to_builtin_roles_and_to_no_custom_role():
    team = dock.team("shop")
    stage = services.create_environment(team, actor=system_user(), slug="dev", name="dev", prefix="dev")
    ours = ensure_repository(ensure_managed_registry(), "shop/api")
    other = ensure_repository(ensure_managed_registry(), "shop/web")
    ROLES.take_from_all_roles(apps, None)  # the state before the upgrade
    old_verbs = [verb.value for verb in Verb if verb != Verb.RECIPE_MANAGE]
    Role.objects.create(slug="everything", name="Everything", verbs=old_verbs)
    lead = grant("lead", "owner")
    part = grant("part", "maintainer", repository_pattern="shop/a*")
    placed = grant("placed", "owner", environment=stage)
    late = grant("late", "owner", expires_at=clock.now())
    maker, custom = grant("maker", "creator"), grant("custom", "everything")
    Permission.objects.filter(codename="recipe_manage").delete()

    ROLES.give_to_builtin_roles(apps, None)
    ROWS.project(apps, SimpleNamespace(connection=connection))

    with_verb = set(Role.objects.filter(verbs__contains=["recipe.manage"]).values_list("slug", flat=True))
    assert with_verb == {"maintainer", "owner"}
    for slug in with_verb:
        assert set(Role.objects.get(slug=slug).verbs) == {verb.value for verb in BUILTIN_ROLES[slug]}
    allowed = [user.username for user in (lead, part, placed, late, maker, custom)
               if may(user, Verb.RECIPE_MANAGE, repository=ours)]  # fmt: skip
    assert allowed == ["lead", "part"]
    assert not may(part, Verb.RECIPE_MANAGE, repository=other)
    assert [user.username for user in (lead, part, placed, maker, custom) if differs(user)] == []


def test_upgrade_of_a_new_installation_needs_no_content_types(monkeypatch):
    kinds = SimpleNamespace(objects=SimpleNamespace(filter=lambda **_: SimpleNamespace(first=lambda: None)))
    models = {"ContentType": kinds, "Permission": None}
    ROWS.project(SimpleNamespace(get_model=lambda app, name: models[name]), None)
