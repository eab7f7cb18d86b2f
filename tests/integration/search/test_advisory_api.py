"""An advisory in API and command line, under each of its names, with the images that the caller can see."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from lifecycle.advisories.models import Advisory
from tests.clients import Caller
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.fixture
def reader(db):
    """Return a reader of shop/api, which has the advisory; bank/app has it too."""
    openssl = dock.package("openssl", "3.0")
    made = dock.advisory("CVE-2024-1", "high", openssl, fixed="3.1", summary="A flaw.")
    Advisory.objects.filter(pk=made.pk).update(
        aliases=["GHSA-x"], cves=["CVE-2024-1"], score=7.5, vector="CVSS:3.1/AV:N"
    )
    for name in ("shop/api", "bank/app"):
        image = dock.image(name)
        dock.carry(image, 0, openssl)
        dock.push(dock.repository(name), image, "1.0")
    return dock.user("reader", "viewer", of=dock.team("shop"))


@pytest.mark.parametrize("name", ["CVE-2024-1", "GHSA-x"])
def test_each_name_finds_it(reader, name):
    found = Caller(reader).get(f"advisories/{name}/").json()
    assert (found["id"], found["severity"], found["severity_by"]) == (name, "high", "CVE-2024-1")
    assert ({"CVE-2024-1", "GHSA-x"} - {name}) == set(found["names"])
    assert (found["cvss_score"], found["is_exploited"], found["epss"]) == (7.5, None, None)
    assert [record["id"] for record in found["records"]] == ["CVE-2024-1"]


def test_images_are_those_that_the_caller_can_see(reader):
    rows = Caller(reader).get("advisories/CVE-2024-1/images/").json()["results"]
    assert [(row["repository"], row["digest"]) for row in rows] == [("shop/api:1.0", dock.sha("shop/api"))]
    assert rows[0]["packages"] == [{"purl": "pkg:deb/debian/openssl@3.0", "fixed_version": "3.1", "vex": ""}]
    other = dock.user("other", "viewer", of=dock.team("bank"))
    rows = Caller(other).get("advisories/CVE-2024-1/images/").json()["results"]
    assert [row["repository"] for row in rows] == ["bank/app:1.0"]
    outsider = dock.user("outsider")
    assert Caller(outsider).get("advisories/CVE-2024-1/images/").json()["results"] == []


def test_images_are_paged(reader):
    package = dock.package("openssl", "3.0")
    for number in range(3):
        image = dock.image(f"more {number}")
        dock.carry(image, 0, package)
        dock.push(dock.repository("shop/more"), image, f"{number}")
    first = Caller(reader).get("advisories/CVE-2024-1/images/", limit=3).json()
    assert (len(first["results"]), bool(first["next"])) == (3, True)
    cursor = parse_qs(urlsplit(first["next"]).query)["cursor"][0]
    second = Caller(reader).get("advisories/CVE-2024-1/images/", limit=3, cursor=cursor).json()
    digests = [row["digest"] for row in first["results"] + second["results"]]
    assert (len(digests), len(set(digests)), second["next"]) == (4, 4, None)


def test_unknown_advisory_is_not_found(reader):
    for path in ("advisories/CVE-1/", "advisories/CVE-1/images/"):
        answer = Caller(reader).get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_command_shows_it_with_images(reader, run):
    code, out, _ = run(reader, "advisory", "show", "GHSA-x", "--images")
    assert code == 0
    assert "high, by CVE-2024-1" in out
    assert "unknown: no KEV list was loaded" in out
    assert "shop/api:1.0" in out
    assert "bank/app" not in out
    code, out, _ = run(reader, "advisory", "show", "CVE-2024-1", "--images", "--json")
    assert [row["repository"] for row in json.loads(out)["images"]] == ["shop/api:1.0"]
    assert run(reader, "advisory", "show", "CVE-1")[0] == 1
