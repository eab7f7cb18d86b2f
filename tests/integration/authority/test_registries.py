"""Registries that admins add: who may, what is refused, that secrets stay secret; page, API and command."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from django.test import Client
from rest_framework.test import APIClient

from accounts import tokens
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import registries
from lifecycle.core import sealing
from lifecycle.core.errors import Conflict, Malformed, NotPermitted, StaleVersion
from lifecycle.oci.probing import Probe, Problem
from lifecycle.registry.models import Registry, Repository
from tests.factories.people import person
from tests.factories.signatures import certificate, new_key

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
SECRET = "s3cret of the robot"
HARBOR = {"name": "harbor", "endpoint": "harbor.example.com", "username": "robot$gd", "password": SECRET}


@pytest.fixture
def admin(dock):
    user = person("root")
    user.is_superuser = True
    user.save()
    return user


@pytest.fixture
def harbor(admin):
    return registries.add_registry(actor=admin, **HARBOR)


def password_of(registry):
    registry = Registry.objects.get(pk=registry.pk)
    return sealing.unseal(bytes(registry.password_encrypted), registry, "password_encrypted")


def test_admin_adds_changes_and_removes_and_the_log_has_no_secret(dock, admin, harbor):
    assert (harbor.endpoint, harbor.is_ours, password_of(harbor)) == ("https://harbor.example.com", True, SECRET)
    assert SECRET.encode() not in bytes(harbor.password_encrypted)
    with pytest.raises(NotPermitted):
        registries.change_registry(harbor.pk, actor=dock.owner, name="mine")
    registries.change_registry(harbor.pk, actor=admin, revision=1, name="harbor-2")
    assert password_of(harbor) == SECRET
    with pytest.raises(StaleVersion):
        registries.change_registry(harbor.pk, actor=admin, revision=1, name="other")
    for change in ({"endpoint": "evil.example.com"}, {"username": "other"}):  # the password goes nowhere else unseen
        with pytest.raises(Malformed, match="password again"):
            registries.change_registry(harbor.pk, actor=admin, **change)
    registries.change_registry(harbor.pk, actor=admin, endpoint="http://h.example.com:81", without_tls=True,
                               password="another")  # fmt: skip
    harbor.refresh_from_db()
    assert (harbor.endpoint, harbor.revision, password_of(harbor)) == ("http://h.example.com:81", 3, "another")
    registries.change_registry(harbor.pk, actor=admin, username="")
    harbor.refresh_from_db()
    assert (harbor.username, harbor.has_password, harbor.is_ours) == ("", False, True)
    with pytest.raises(NotPermitted):
        registries.remove_registry(harbor.pk, actor=dock.owner)
    registries.remove_registry(harbor.pk, actor=admin)
    assert not Registry.objects.filter(pk=harbor.pk).exists()
    events = AuditEvent.objects.filter(action__startswith="registry.").order_by("pk")
    assert [event.action for event in events] == ["registry.added", *["registry.changed"] * 3, "registry.removed"]
    assert [event.details["is_password_changed"] for event in events] == [True, False, True, True, False]
    written = json.dumps([event.details for event in events])
    assert SECRET not in written
    assert "another" not in written


def test_another_certificate_asks_for_the_password_and_is_recorded(admin, harbor):
    key = new_key()
    made = certificate("dock", key, None, key, is_ca=True).sign(key, hashes.SHA256())
    pem = made.public_bytes(Encoding.PEM).decode()
    with pytest.raises(Malformed, match="password again"):
        registries.change_registry(harbor.pk, actor=admin, ca_certificate=pem)
    registries.change_registry(harbor.pk, actor=admin, ca_certificate=pem, password=SECRET)
    registries.change_registry(harbor.pk, actor=admin, ca_certificate=pem.replace("\n", "\r\n"))  # as forms send it
    registries.change_registry(harbor.pk, actor=admin, username="")
    registries.change_registry(harbor.pk, actor=admin, ca_certificate="")  # there is no password to protect
    events = AuditEvent.objects.filter(action="registry.changed").order_by("pk")
    changed = [(row.details["is_password_changed"], row.details["is_certificate_changed"]) for row in events]
    assert changed == [(True, True), (False, False), (True, False), (False, True)]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"endpoint": "http://harbor.example.com"}, Malformed),  # without TLS only when that is allowed
        ({"endpoint": "https://harbor.example.com", "without_tls": True}, Malformed),
        ({"endpoint": "https://harbor.example.com/project"}, Malformed),
        ({"endpoint": "https://me:word@harbor.example.com"}, Malformed),
        ({"endpoint": "ftp://harbor.example.com"}, Malformed),
        ({"endpoint": "https://harbor.example.com:443/"}, Conflict),  # the same address, written otherwise
        ({"endpoint": "HTTP://HARBOR.example.com.:80", "without_tls": True}, Conflict),
        ({"name": "harbor"}, Conflict),
        ({"name": "managed"}, Malformed),
        ({"name": "Harbor"}, Malformed),
        ({"password": ""}, Malformed),
        ({"username": ""}, Malformed),
        ({"username": "a:b"}, Malformed),
        ({"ca_certificate": "no certificate"}, Malformed),
        ({"ca_certificate": "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----"}, Malformed),
    ],
)
def test_bad_registry_is_refused(admin, harbor, change, error):
    good = HARBOR | {"name": "zot", "endpoint": "zot.example.com"}
    with pytest.raises(error):
        registries.add_registry(actor=admin, **(good | change))
    assert registries.add_registry(actor=admin, **good).endpoint == "https://zot.example.com"


def test_managed_registry_is_not_touched(dock, admin, settings):
    managed = dock.repository.registry
    for act in (
        lambda: registries.change_registry(managed.pk, actor=admin, name="x"),
        lambda: registries.remove_registry(managed.pk, actor=admin),
        lambda: registries.test_registry(managed.pk, actor=admin),
        lambda: registries.add_registry(actor=admin, name="x", endpoint=settings.REGISTRY_URL, without_tls=True),
    ):
        with pytest.raises(Conflict):
            act()


def test_registry_of_an_inventory_is_taken_over_and_given_back(dock, admin):
    row = Registry.objects.create(name="quay-io", endpoint="https://quay.io")
    Repository.objects.create(registry=row, team=dock.team, name="shop/x", family="shop/x")
    assert not row.is_ours
    taken = registries.add_registry(actor=admin, **HARBOR | {"endpoint": "quay.io"})
    assert (taken.pk, taken.name, taken.is_ours) == (row.pk, "harbor", True)
    with pytest.raises(Conflict, match="Add a registry"):
        registries.change_registry(row.pk, actor=admin, endpoint="quay.example.com", password="x")
    registries.remove_registry(row.pk, actor=admin)
    row.refresh_from_db()
    assert (row.is_ours, row.username, row.has_password) == (False, "", False)


def test_api_never_shows_the_password_and_knows_revisions(dock, admin, monkeypatch):
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {tokens.create_token(admin, kind='pat', name='x')[1]}")
    made = client.post("/api/v1/registries/", HARBOR, format="json")
    assert (made.status_code, made["ETag"]) == (201, '"1"')
    where = f"/api/v1/registries/{made.json()['id']}/"
    assert SECRET not in made.content.decode() + client.get(where).content.decode()
    assert [row["name"] for row in client.get("/api/v1/registries/").json()["results"]] == ["managed", "harbor"]
    changed = client.patch(where, {"name": "zot"}, format="json", HTTP_IF_MATCH='"1"')
    assert (changed.status_code, changed.json()["name"], changed["ETag"]) == (200, "zot", '"2"')
    assert client.patch(where, {"name": "x"}, format="json", HTTP_IF_MATCH='"1"').status_code == 412
    monkeypatch.setattr(registries, "probe_registry", lambda row: Probe(Problem.TLS, f"no TLS at {row.endpoint}"))
    tested = client.post(f"{where}test/").json()
    assert tested == {"is_ok": False, "problem": "tls", "detail": "no TLS at https://harbor.example.com"}
    assert client.delete(where, HTTP_IF_MATCH='"2"').status_code == 204


def test_pages_add_test_and_remove(dock, admin, monkeypatch):
    client = Client()
    client.force_login(admin, backend=BACKEND)
    form = {"name": "harbor", "endpoint": "harbor.example.com", "account": "robot", "account_password": SECRET}
    refused = client.post("/registries/new/", form | {"endpoint": "http://harbor.example.com"})
    assert refused.status_code == 422
    assert SECRET not in refused.content.decode()
    where = client.post("/registries/new/", form)["Location"]
    page = client.get(where).content.decode()
    assert "Leave empty to keep the present one." in page
    assert SECRET not in page
    assert client.post(where, form | {"account_password": "", "revision": "1", "name": "zot"}).status_code == 302
    assert client.post(where, form | {"account_password": "", "revision": "1"}).status_code == 422
    assert "harbor.example.com" in client.get("/registries/").content.decode()
    monkeypatch.setattr(registries, "probe_registry", lambda row: Probe(Problem.NAME, "No such host."))
    assert "No such host." in client.post(f"{where}test/", follow=True).content.decode()
    assert client.get(f"{where}remove/").status_code == 200
    assert client.post(f"{where}remove/").status_code == 302
    assert not Registry.objects.filter(is_added=True).exists()
