"""`gravingdock group`."""

from __future__ import annotations

import json

import pytest

from accounts.models import Group
from tests.factories.people import person

pytestmark = pytest.mark.django_db


def test_owner_makes_a_group_fills_and_deletes_it(dock, run):
    person("kim")
    assert run(dock.owner, "group", "create", "shop/devs", "--name", "Developers")[:2] == (
        0,
        "Created group shop/devs.\n",
    )
    assert run(dock.owner, "group", "add", "shop/devs", "kim")[:2] == (0, "Added kim to shop/devs.\n")
    code, out, _ = run(dock.owner, "group", "members", "shop/devs", "--json")
    assert (code, json.loads(out)["username"]) == (0, "kim")
    code, out, _ = run(dock.owner, "group", "list", "--json")
    row = json.loads(out)
    assert (row["full_name"], row["team"], row["members"]) == ("shop/devs", "shop", 1)
    assert run(dock.owner, "group", "remove", "shop/devs", "kim")[:2] == (0, "Removed kim from shop/devs.\n")
    code, _, err = run(dock.owner, "group", "remove", "shop/devs", "kim")
    assert (code, err) == (1, "kim is not in group shop/devs.\n")
    assert run(dock.owner, "group", "delete", "shop/devs")[0] == 0
    assert not Group.objects.exists()


def test_outsider_finds_no_group_of_the_team(dock, run):
    run(dock.owner, "group", "create", "shop/devs")
    code, _, err = run(dock.outsider, "group", "add", "shop/devs", "outsider")
    assert code == 1
    assert "No group shop/devs" in err
    assert run(dock.owner, "group", "add", "shop/devs", "outsider")[0] == 0
