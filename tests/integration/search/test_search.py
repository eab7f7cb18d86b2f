"""The search: what a text finds, by index, and only what the reader can see."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client

from lifecycle.advisories.models import Advisory
from lifecycle.advisories.queries import named_by
from lifecycle.rebuild.models import RebuildWave
from lifecycle.registry.models import Repository, Tag, words_of_name
from lifecycle.search.queries import search
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.fixture
def quay():
    made = dock.quay()
    Advisory.objects.filter(osv_id="GHSA-v845-jxx5-vc9f").update(
        aliases=["CVE-2023-43804"], score=8.1, vector="CVSS:3.1/AV:N", details="Cookies <b>leak</b>.",
        references=[{"type": "WEB", "url": "https://example.com/a"}],
    )  # fmt: skip
    Advisory.objects.filter(osv_id="CVE-2011-4116").update(upstream=["UPSTREAM-1"])
    made["wave"] = RebuildWave.objects.create(
        repository=dock.repository("base/debian"), new_base=made["new"], planned_by=made["reader"]
    )
    made["stranger"] = dock.user("stranger", "owner", of=dock.team("elsewhere"))
    return made


def found(user, text):
    return {(hit.kind, hit.name) for hit in search(user, text)}


def test_every_kind_is_found_by_those_who_see_it_only(quay):
    digest = quay["api"].digest
    texts = {
        "shop/api": ("repository", "shop/api"),
        "worker": ("repository", "shop/worker"),
        "SHOP/Wor": ("repository", "shop/worker"),
        "2.14": ("tag", "shop/api:2.14.1"),
        "bookworm": ("tag", "base/debian:bookworm"),
        "shop/api:1.0": ("tag", "shop/api:1.0"),
        "api:1.0": ("tag", "shop/api:1.0"),
        digest: ("image", digest[:19]),
        digest[:19] + "…": ("image", digest[:19]),
        digest[7:13]: ("image", digest[:19]),
        digest[7:].upper(): ("image", digest[:19]),
        f"shop/api@{digest}": ("image", digest[:19]),
        "urllib3": ("package", "urllib3"),
        "Urll": ("package", "urllib3"),
        "openssl": ("package", "libssl3"),  # by its source package
        f"PR-{quay['open'].pk}": ("request", f"PR-{quay['open'].pk}"),
        f"pr {quay['open'].pk}": ("request", f"PR-{quay['open'].pk}"),
        f"#{quay['open'].pk}": ("request", f"PR-{quay['open'].pk}"),
        f"W-{quay['wave'].pk}": ("wave", f"W-{quay['wave'].pk}"),
    }
    assert {text: hit in found(quay["reader"], text) for text, hit in texts.items()} == dict.fromkeys(texts, True)
    assert {text: found(quay["stranger"], text) for text in texts} == {text: set() for text in texts}


@pytest.mark.parametrize(
    ("text", "osv_id"),
    [
        ("CVE-2024-5535", "CVE-2024-5535"),
        ("cve-2024-55", "CVE-2024-5535"),
        ("ghsa-V845-jxx5-vc9f", "GHSA-v845-jxx5-vc9f"),
        ("CVE-2023-43804", "GHSA-v845-jxx5-vc9f"),
        ("UPSTREAM-1", "CVE-2011-4116"),
    ],
)
def test_an_advisory_is_found_under_each_of_its_names(quay, text, osv_id):
    assert ("advisory", osv_id) in found(quay["reader"], text)


@pytest.mark.parametrize(
    "text", ["", "   ", "\0", "%", "_", "'", "PR-0", "99999999999999999999", "sha256:", "x" * 5000]
)
def test_odd_texts_find_nothing(quay, text):
    assert found(quay["reader"], text) == set()


def test_page_and_palette_and_api_show_the_same(quay, client):
    client.force_login(quay["reader"])
    hits = {hit.name for hit in search(quay["reader"], "worker")}
    page, part = (client.get("/search/?q=worker", headers=extra) for extra in ({}, {"HX-Request": "true"}))
    answer = client.get("/api/v1/search/?q=worker").json()["results"]
    assert hits
    assert {row["name"] for row in answer} == hits
    for text in (page.content.decode(), part.content.decode()):
        assert all(name in text for name in hits)
    assert b"<html" in page.content
    assert b"<html" not in part.content
    assert [client.get(row["url"].removeprefix("http://localhost:8000")).status_code for row in answer] == [200] * len(
        hits
    )
    assert client.get("/api/v1/search/").status_code == 400
    assert client.get("/api/v1/search/?q=" + "x" * 400).status_code == 400


def test_advisory_page_shows_names_score_links_and_visible_images(quay, client):
    client.force_login(quay["reader"])
    page = client.get("/advisories/CVE-2023-43804/").content.decode()
    for text in ("GHSA-v845-jxx5-vc9f", "8.1", "CVSS:3.1/AV:N", "https://example.com/a", "&lt;b&gt;leak", "1.26.17"):
        assert text in page
    assert "/t/shop/r/shop/api/i/" in page
    hidden = Client()
    hidden.force_login(quay["stranger"])
    page = hidden.get("/advisories/CVE-2023-43804/").content.decode()
    assert "No image you can see is affected." in page
    assert "/t/shop/" not in page
    assert client.get("/advisories/CVE-1999-0001/").status_code == 404


def test_package_page_shows_visible_images_only(quay, client):
    client.force_login(quay["reader"])
    page = client.get("/packages/pypi/urllib3/").content.decode()
    assert "shop/api" in page
    assert "1.26.5" in page
    hidden = Client()
    hidden.force_login(quay["stranger"])
    assert hidden.get("/packages/pypi/urllib3/").status_code == 404
    assert client.get("/packages/pypi/no-such/").status_code == 404


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        (lambda: Repository.objects.alias(words=words_of_name()).filter(words="api"), "repository_by_words"),
        (lambda: Tag.objects.filter(name__gte="1.0", name__lt="1.0\uffff"), "tag_by_name"),
        (lambda: named_by("CVE-1"), "advisory_by_other_name"),
    ],
)
def test_search_has_its_index(rows, index):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    assert index in rows().explain()
