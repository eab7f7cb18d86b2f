"""The cast of the demonstration on a real database: made once, kept, and nothing of anybody else's taken over."""

from __future__ import annotations

import json

import pytest

from accounts.models import Team, User
from accounts.tokens import find_token
from lifecycle.demo import cast
from lifecycle.demo.images import PRODUCTS
from lifecycle.demo.telling import DemonstrationFailed
from lifecycle.environments.models import Environment
from lifecycle.oci.scopes import repository_scope
from lifecycle.registry.models import Repository
from lifecycle.tokens.rights import allowed_actions
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.fixture
def seeded(tmp_path):
    file = tmp_path / "demo-accounts.json"
    return file, cast.seed(dock.registry(), file, web="http://localhost:1")


def pushes(username, repository):
    scope = repository_scope(repository, "pull", "push")
    return "push" in allowed_actions(User.objects.get(username=username), [scope]).get(
        ("repository", repository), frozenset()
    )


def test_the_file_lets_each_role_sign_in_speak_to_the_api_and_push_what_it_may(seeded):
    file, accounts = seeded
    assert file.stat().st_mode & 0o777 == 0o600
    written = json.loads(file.read_text())
    assert list(written) == [part.username for part in cast.PARTS]
    for name, row in written.items():
        user = User.objects.get(username=name)
        assert user.check_password(row["password"])
        assert find_token(row["api_token"]).user == user
        assert find_token(row["registry"]["password"]).user == user
        assert row["registry"]["server"] == "localhost:5000"
        allowed = [product.repository for product in PRODUCTS if pushes(name, product.repository)]
        assert row["repositories"] == allowed
    assert written["shop-developer"]["repositories"] == ["shop/api", "shop/worker", "shop/static"]
    assert accounts["captain"].password == written["captain"]["password"]


def test_nobody_pushes_into_an_environment_not_even_its_owner(seeded):
    assert pushes("captain", "shop/api")
    assert not pushes("captain", "production/shop/api")
    assert not pushes("shop-developer", "dev/shop/api")


def test_a_second_run_finds_everything_and_keeps_what_still_works(seeded):
    file, first = seeded
    captain = User.objects.get(username="captain")
    captain.set_password("changed in the browser")
    captain.save()

    second = cast.seed(dock.registry(), file, web="http://localhost:1")

    assert {name: row for name, row in second.items() if name != "captain"} == {
        name: row for name, row in first.items() if name != "captain"
    }
    captain.refresh_from_db()
    assert captain.check_password(second["captain"].password)
    assert second["captain"].api_token == first["captain"].api_token
    assert [place.slug for place in Environment.objects.order_by("position")] == ["dev", "staging", "production"]
    assert sorted(Repository.objects.values_list("name", flat=True)) == sorted(p.repository for p in PRODUCTS)


def test_secrets_are_made_anew_when_the_file_is_gone(seeded):
    file, first = seeded
    file.unlink()
    second = cast.seed(dock.registry(), file, web="http://localhost:1")
    assert second["auditor"].password != first["auditor"].password
    assert User.objects.get(username="auditor").check_password(second["auditor"].password)


@pytest.mark.parametrize("taken", ["account", "team"])
def test_what_somebody_else_made_is_not_taken_over_and_nothing_is_left(tmp_path, taken):
    if taken == "account":
        dock.user("captain")
    else:
        dock.team("shop")
    with pytest.raises(DemonstrationFailed, match="did not create it"):
        cast.seed(dock.registry(), tmp_path / "accounts.json", web="http://localhost:1")
    assert not (tmp_path / "accounts.json").exists()
    assert not Team.objects.filter(slug="base").exists()
    assert not User.objects.filter(username="auditor").exists()
