"""`gravingdock quarantine`: stop an image from a terminal, and lift that with two people."""

from __future__ import annotations

import json

import pytest

from tests.factories.people import person

pytestmark = pytest.mark.django_db


def test_quarantine_is_made_listed_shown_and_lifted(dock, run):
    guard, other = person("guard", dock.team, "security"), person("other", dock.team, "security")
    code, out, _ = run(
        guard, "quarantine", "create", "shop/api:1.0", "--reason", "bad", "--incident", "INC-7", "--json"
    )
    made = json.loads(out)
    assert (code, made["digest"], made["descendants"]) == (0, dock.image.digest, True)
    name = f"Q-{made['id']}"
    assert name in run(guard, "quarantine", "list", "--state", "active")[1]
    assert dock.image.digest in run(guard, "quarantine", "show", name)[1]
    assert json.loads(run(guard, "quarantine", "show", made["id"], "--json")[1])["images"]
    code, _, problem = run(guard, "quarantine", "release", name)
    assert (code, "Another person" in problem) == (1, True)
    assert run(guard, "quarantine", "request-release", name, "--reason", "false alarm")[0] == 0
    assert run(other, "quarantine", "refuse-release", name, "--reason", "not proven")[0] == 0
    assert run(guard, "quarantine", "request-release", name, "--reason", "proven")[0] == 0
    assert run(other, "quarantine", "release", name)[0] == 0
    assert json.loads(run(guard, "quarantine", "list", "--json")[1])["state"] == "released"


def test_image_is_withdrawn(dock, run):
    guard = person("guard", dock.team, "security")
    code, out, _ = run(guard, "quarantine", "create", "shop/api:1.0", "--reason", "bad", "--withdraw", "--json")
    made = json.loads(out)
    assert (code, made["withdraw"]) == (0, True)
    assert f"pending  shop/api@{dock.image.digest}  1.0" in run(guard, "quarantine", "show", made["id"])[1]


def test_a_live_quarantine_begins_to_stop_pulls(dock, run):
    guard = person("guard", dock.team, "security")
    made = json.loads(run(guard, "quarantine", "create", "shop/api:1.0", "--reason", "bad", "--json")[1])
    code, out, _ = run(guard, "quarantine", "withdraw", made["id"], "--reason", "it is pulled", "--json")
    assert (code, json.loads(out)["withdraw"]) == (0, True)


def test_exemption_of_an_image_that_is_not_covered_is_refused(dock, run):
    guard, other = person("guard", dock.team, "security"), person("other", dock.team, "security")
    run(guard, "quarantine", "create", dock.image.digest, "--reason", "bad", "--only-image")
    code, _, problem = run(other, "quarantine", "exempt", "Q-x", dock.image.digest, "--reason", "x")
    assert (code, "Name a quarantine by its number" in problem) == (2, True)
    listed = json.loads(run(guard, "quarantine", "list", "--json")[1])
    code, _, problem = run(other, "quarantine", "exempt", listed["id"], dock.image.digest, "--reason", "x")
    assert (code, "quarantined image itself" in problem) == (1, True)
