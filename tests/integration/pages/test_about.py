"""The About page, and compressed responses."""

from __future__ import annotations

import gzip

import pytest
from django.test import Client

from accounts.models import User
from lifecycle.core.version import version
from tests.factories.people import person

pytestmark = pytest.mark.django_db


def test_about_shows_the_version_to_all_and_the_parts_to_admins(client, db):
    client.force_login(person("reader"))
    page = client.get("/about/").content.decode()
    assert version() != "unknown"
    assert version() in page
    assert "PostgreSQL" not in page
    admin = Client()
    admin.force_login(User.objects.create(username="admin", is_superuser=True))
    assert "PostgreSQL" in admin.get("/about/").content.decode()


@pytest.mark.parametrize("address", ["/about/", "/api/v1/schema/?format=json"])
def test_responses_are_compressed_where_the_client_accepts_it(client, address):
    client.force_login(person("reader"))
    plain, packed = client.get(address), client.get(address, headers={"Accept-Encoding": "gzip"})
    assert (plain.headers.get("Content-Encoding"), packed["Content-Encoding"]) == (None, "gzip")
    assert "Accept-Encoding" in packed["Vary"]
    assert len(packed.content) < len(plain.content) / 2
    assert len(gzip.decompress(packed.content)) > 500


def test_lengths_of_the_same_page_differ(client):
    """The random padding against BREACH: a guess in a page must not show in its length."""
    client.force_login(person("reader"))
    assert len({len(client.get("/about/", headers={"Accept-Encoding": "gzip"}).content) for _ in range(12)}) > 1
