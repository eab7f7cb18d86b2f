"""Metadata of one's own: types, rights, audit, search, export, pages, API, and the record of a promotion."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.ingest import metadata
from lifecycle.promotion import services as promotions
from lifecycle.registry.models import Metadata
from lifecycle.registry.queries import metadata_of
from lifecycle.search.queries import search
from tests.factories import dock as rows
from tests.factories.people import person

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def maintainer(dock):
    return person("maintainer", dock.team, "maintainer")


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("text", " kim ", "kim"), ("number", "3.140", "3.14"), ("number", "1e3", "1000"), ("boolean", "Yes", "true"),
        ("date", "2026-11-28", "2026-11-28"), ("link", "https://example.com/a", "https://example.com/a"),
    ],
)  # fmt: skip
def test_values_are_stored_in_the_form_of_their_type(kind, value, stored):
    assert metadata.parse_value(kind, value) == stored


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", ""), ("text", "x" * 1001), ("text", "a\0"), ("number", "NaN"), ("number", "1e400"),
        ("number", "three"),
        ("boolean", "maybe"), ("date", "2026-02-30"), ("date", "yesterday"), ("link", "javascript:alert(1)"),
        ("link", "https://"), ("colour", "red"),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(kind, value):
    with pytest.raises(Malformed):
        metadata.parse_value(kind, value)


def test_only_maintainers_change_metadata_and_every_change_is_audited(dock, maintainer):
    digest = dock.image.digest
    metadata.set_metadata(dock.repository.pk, "owner", "kim", actor=maintainer)
    metadata.set_metadata(dock.repository.pk, "owner", "kim", actor=maintainer)  # no change, no event
    metadata.set_metadata(dock.repository.pk, "owner", "lee", actor=maintainer, digest=digest)
    stored = [(item.value, item.image_id) for item in metadata_of(dock.repository, dock.image)]
    assert stored == [("kim", None), ("lee", dock.image.pk)]
    for user, error in ((dock.requester, NotPermitted), (dock.outsider, NotFound)):
        with pytest.raises(error):
            metadata.set_metadata(dock.repository.pk, "owner", "x", actor=user)
        with pytest.raises(error):
            metadata.remove_metadata(dock.repository.pk, "owner", actor=user)
    metadata.remove_metadata(dock.repository.pk, "owner", actor=maintainer)
    with pytest.raises(NotFound):
        metadata.remove_metadata(dock.repository.pk, "owner", actor=maintainer)
    events = AuditEvent.objects.filter(action__startswith="metadata.").order_by("pk")
    found = [(event.action, event.details["before"], event.details["after"], event.digest) for event in events]
    assert found == [
        ("metadata.set", "", "kim", ""),
        ("metadata.set", "", "lee", digest),
        ("metadata.removed", "kim", "", ""),
    ]


def test_keys_are_limited(dock, maintainer, monkeypatch):
    for key in ("", "-a", "a-", "a b", "\u00e4", "a" * 101):
        with pytest.raises(Malformed):
            metadata.set_metadata(dock.repository.pk, key, "x", actor=maintainer)
    monkeypatch.setattr(metadata, "ENTRIES_MAX", 1)
    metadata.set_metadata(dock.repository.pk, "a", "x", actor=maintainer)
    with pytest.raises(Conflict):
        metadata.set_metadata(dock.repository.pk, "b", "x", actor=maintainer)
    metadata.set_metadata(dock.repository.pk, "a", "y", actor=maintainer)


def test_another_team_with_the_same_digest_sees_none_of_it(dock, maintainer):
    metadata.set_metadata(dock.repository.pk, "owner", "kim", actor=maintainer, digest=dock.image.digest)
    theirs = rows.repository("other/api", rows.team("other"))
    rows.push(theirs, dock.image, "1.0")
    stranger = person("stranger", rows.team("other"), "owner")
    page = browser(stranger).get(f"/t/other/r/other/api/i/{dock.image.digest}/?tab=configuration").content.decode()
    assert "No metadata yet." in page
    assert search(stranger, "owner=kim") == []
    assert [hit.detail for hit in search(maintainer, "owner=k")] == ["owner=kim"]


def test_pages_set_remove_and_keep_what_was_refused(dock, maintainer):
    client, place = browser(maintainer), "/t/shop/r/shop/api/"
    form = {"key": "reviewed", "kind": "date", "value": "2026-11-28"}
    assert client.post(place + "-/metadata/", form | {"digest": dock.image.digest}).status_code == 302
    page = client.get(f"{place}i/{dock.image.digest}/?tab=configuration").content.decode()
    assert "2026-11-28" in page
    for digest in ({}, {"digest": dock.image.digest}):
        refused = client.post(place + "-/metadata/", form | {"value": "soon"} | digest)
        assert refused.status_code == 422
        assert 'value="soon"' in refused.content.decode()
        assert "Enter a date" in refused.content.decode()
    assert client.post(place + "-/metadata/", form).status_code == 302
    assert "2026-11-28" in client.get(place + "?tab=settings").content.decode()
    client.post(place + "-/metadata/remove/", {"key": "reviewed"})
    assert Metadata.objects.filter(image=None).count() == 0
    assert "Save metadata" not in browser(dock.requester).get(place + "?tab=settings").content.decode()


def test_api_lists_sets_and_removes(dock, maintainer):
    client, address = browser(maintainer), f"/api/v1/repositories/{dock.repository.pk}/metadata/"
    body = {"key": "size", "kind": "number", "value": "3.0", "digest": dock.image.digest}
    made = client.put(address, body, content_type="application/json")
    assert (made.status_code, made.json()["value"], made.json()["digest"]) == (200, "3", dock.image.digest)
    assert client.get(address).json()["results"] == []
    assert [row["key"] for row in client.get(f"{address}?digest={dock.image.digest}").json()["results"]] == ["size"]
    assert client.put(address, body | {"value": "x"}, content_type="application/json").status_code == 400
    assert client.delete(f"{address}?key=size&digest={dock.image.digest}").status_code == 204
    assert client.delete(f"{address}?key=size&digest={dock.image.digest}").status_code == 404


def test_metadata_is_in_exports_and_in_the_record_of_a_promotion(dock, maintainer):
    rows.carry(dock.image, 0, rows.package("openssl", "3.0"))
    metadata.set_metadata(dock.repository.pk, "owner", "kim", actor=maintainer)
    metadata.set_metadata(dock.repository.pk, "ticket", "42", actor=maintainer, digest=dock.image.digest)
    client, place = browser(maintainer), f"/t/shop/r/shop/api/i/{dock.image.digest}/export/"
    record = {"repository": {"owner": "kim"}, "image": {"ticket": "42"}}
    assert json.loads(b"".join(client.get(place + "findings.json").streaming_content))["metadata"] == record
    bom = json.loads(b"".join(client.get(place + "cdx.json").streaming_content))
    assert {"name": "gravingdock:image:ticket", "value": "42"} in bom["metadata"]["properties"]
    request = promotions.request_promotion(
        dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="x"
    )
    assert request.evaluations.latest("pk").inputs["metadata"] == record
    page = client.get(f"/promotions/{request.pk}/").content.decode()
    assert "ticket" in page
    assert "of the image" in page
