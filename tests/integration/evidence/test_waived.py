"""Findings that an approved waiver covers are marked, stay open, and say nothing to who cannot see the waiver."""

from __future__ import annotations

import csv
import io

import pytest

from lifecycle.advisories.models import AffectedInterval, Match
from lifecycle.evidence.exporting import export
from lifecycle.evidence.waived import _package_of, waivers_of
from lifecycle.policies.types import Scope
from lifecycle.policies.waivers import revoke_waiver
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import version_key
from tests.clients import Caller, browser
from tests.factories import dock
from tests.factories.policies import rule, save, waiver

pytestmark = pytest.mark.django_db
CVE = "CVE-2024-5535"


@pytest.fixture
def harbour(db):
    made = dock.harbour()
    for package in PackageVersion.objects.all():
        package.version_key = version_key(package.scheme, package.match_version)
        package.save(update_fields=["version_key"])
    for match in Match.objects.select_related("package"):
        AffectedInterval.objects.create(
            advisory=match.advisory, ecosystem=match.package.ecosystem, release=match.package.release,
            name=match.package.match_name, scheme=match.package.scheme, fixed_version=match.fixed_version,
        )  # fmt: skip
    shop = dock.team("shop")
    save(Scope(shop), rule("severe", severity="high"))
    made["approver"] = dock.user("second", "owner", of=shop)
    return made


def waive(made, **scope):
    return waiver(
        dock.team("shop"), "severe", by=made["reader"], approver=made["approver"], advisory=CVE, **scope
    )  # fmt: skip


def marked(reader, image):
    rows = Caller(reader).get(f"images/{image.digest}/findings/").json()["results"]
    return {(row["vulnerability"], row["state"]): row["waivers"] for row in rows if "waivers" in row}


def test_a_waiver_of_a_repository_marks_its_finding(harbour):
    row = waive(harbour, repository=dock.repository("shop/api"))
    api, reader = harbour["api"], harbour["reader"]
    (found,) = marked(reader, api).values()
    assert [(each["name"], each["rule"]) for each in found] == [(str(row), "severe")]
    assert list(marked(reader, api)) == [(CVE, "open")]
    assert Image.objects.get(pk=api.pk).critical_count == 1  # counted as before
    assert marked(reader, harbour["worker"]) == {}
    page = browser(reader).get(f"/t/shop/r/shop/api/i/{api.digest}/", {"tab": "findings"}).content.decode()
    assert f"/waivers/{row.pk}/" in page
    parts = export(api, "findings.csv", metadata={}, reader=reader)[1]
    lines = list(csv.DictReader(io.StringIO(b"".join(parts).decode())))
    assert {line["vulnerability"] for line in lines if line["waivers"]} == {CVE}
    revoke_waiver(row.pk, actor=reader, reason="over")
    assert marked(reader, api) == {}


def test_package_and_digest_limit_it(harbour):
    waive(harbour, repository=dock.repository("shop/api"), package="debian/other")
    assert marked(harbour["reader"], harbour["api"]) == {}
    waive(harbour, repository=dock.repository("shop/api"), package="debian/libssl3", digest=harbour["api"].digest)
    assert list(marked(harbour["reader"], harbour["api"])) == [(CVE, "open")]


def test_who_cannot_see_the_waiver_sees_no_mark(harbour):
    waive(harbour, repository=dock.repository("shop/api"))
    dock.push(dock.repository("bank/api"), harbour["api"], "1.0")
    outsider = dock.user("outsider", "owner", of=dock.team("bank"))
    assert marked(outsider, harbour["api"]) == {}
    assert waivers_of(harbour["api"], outsider) == []
    assert len(waivers_of(harbour["api"], harbour["reader"])) == 1


@pytest.mark.parametrize(
    ("purl", "name"),
    [
        ("pkg:deb/debian/openssl@3.0.11-1?arch=amd64", "debian/openssl"),
        ("pkg:npm/%40scope/name@1.0.0", "@scope/name"),
        ("pkg:pypi/requests", "requests"),
        ("", ""),
    ],
)
def test_package_of_a_purl(purl, name):
    assert _package_of(purl) == name
