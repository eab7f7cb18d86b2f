"""`gravingdock registry`."""

from __future__ import annotations

import io

import pytest

from lifecycle.authority.services import registries
from lifecycle.core import sealing
from lifecycle.oci.probing import Probe, Problem
from lifecycle.registry.models import Registry
from tests.factories.people import person

pytestmark = pytest.mark.django_db
SECRET = "s3cret of the robot"


@pytest.fixture
def admin(dock):
    user = person("root")
    user.is_superuser = True
    user.save()
    return user


def password_of(name):
    registry = Registry.objects.get(name=name)
    return sealing.unseal(bytes(registry.password_encrypted), registry, "password_encrypted")


def test_command_takes_the_password_from_standard_input(dock, admin, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(SECRET + "\n"))
    code, out, _ = run(admin, "registry", "add", "harbor", "harbor.example.com", "--username", "robot")
    assert (code, out) == (0, "Added registry harbor: https://harbor.example.com.\n")
    assert password_of("harbor") == SECRET
    monkeypatch.setenv("GRAVINGDOCK_REGISTRY_PASSWORD", "from the environment")
    assert run(admin, "registry", "add", "zot", "zot.example.com", "--username", "robot")[0] == 0
    assert password_of("zot") == "from the environment"
    assert "https://zot.example.com" in run(admin, "registry", "list")[1]
    monkeypatch.setattr(registries, "probe_registry", lambda row: Probe(Problem.TLS, "No TLS there."))
    assert run(admin, "registry", "test", "zot") == (1, "", "No TLS there.\n")
    monkeypatch.setattr(registries, "probe_registry", lambda row: Probe(Problem.NONE, "It takes the credentials."))
    assert run(admin, "registry", "test", "zot")[:2] == (0, "It takes the credentials.\n")
    assert run(dock.owner, "registry", "list")[0] == 1
    assert run(admin, "registry", "remove", "zot")[0] == 0
