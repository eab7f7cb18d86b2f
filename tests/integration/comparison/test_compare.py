"""Changes from one image to another, read from the database in a fixed number of queries."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from lifecycle.comparison.queries import compare
from lifecycle.comparison.types import AdvisoryLine, Change, Comparison, FindingLine
from lifecycle.evidence.findings import finding_severities
from lifecycle.evidence.types import FindingKey
from lifecycle.registry.models import Image
from tests.factories import dock

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def pair():
    """An image with two findings, and its successor: one finding is fixed, one is new, one remains."""
    old_ssl, new_ssl = (dock.package("libssl3", version, source="openssl") for version in ("3.0.11-1", "3.0.15-1"))
    tar, jq = dock.package("tar", "1.34"), dock.package("jq", "1.6")
    urllib3 = dock.package("urllib3", "2.5.0", kind="pypi")
    config = {"config": {"Env": ["A=1", "B=2"], "User": "app"}}
    before = dock.image("before", layers=2, config=config)
    after = dock.image("after", layers=3, under=before, config={"config": {"Env": ["A=1", "C=3"], "User": "app"}})
    dock.carry(before, 0, old_ssl, tar, jq)
    dock.carry(after, 0, new_ssl, tar)
    dock.carry(after, 2, urllib3)
    dock.advisory("CVE-1", "critical", old_ssl, fixed="3.0.15-1")
    dock.advisory("CVE-2", "low", tar)
    dock.advisory("CVE-3", "medium", urllib3, fixed="2.6.0")
    return before, after


def test_compare_covers_findings_packages_layers_and_configuration(pair):
    comparison = compare(*pair)
    assert comparison.is_known
    assert [(line.change, line.osv_id, line.before, line.after, line.layer) for line in comparison.findings] == [
        (Change.NEW, "CVE-3", "", "2.5.0", "layer 3 of 3"),
        (Change.FIXED, "CVE-1", "3.0.11-1", "3.0.15-1", "layer 1 of 2"),
        (Change.SAME, "CVE-2", "1.34", "1.34", "layer 1 of 3"),
    ]
    assert {(line.name, line.change) for line in comparison.packages} == {
        ("jq", Change.GONE),
        ("libssl3", Change.UP),
        ("urllib3", Change.NEW),
    }
    (platform,) = comparison.platforms
    assert [layer.is_shared for layer in platform.layers] == [True, True, False]
    assert [(line.name, line.before, line.after) for line in platform.settings] == [
        ("Env B", "2", None),
        ("Env C", None, "3"),
    ]
    assert comparison.as_json()["summary"]["findings"] == {
        "fixed": 1, "new": 1, "same": 1, "unknown": 0,
    }  # fmt: skip


def test_compare_in_reverse_order_gives_the_opposite(pair):
    comparison = compare(pair[1], pair[0])
    assert (len(comparison.fixed), len(comparison.new), comparison.package_counts[Change.DOWN]) == (1, 1, 1)


def test_compare_with_nothing_reports_everything_as_new(pair):
    comparison = compare(None, pair[1])
    assert (len(comparison.new), len(comparison.fixed), comparison.new_layer_count) == (2, 0, 3)
    assert comparison.package_counts[Change.NEW] == 3


def test_unscanned_image_has_unknown_findings_not_zero(pair):
    before, after = pair
    after.scanned_at = None
    after.save()
    comparison = compare(before, after)
    assert not comparison.is_known
    assert (comparison.findings, comparison.packages) == ((), ())
    severities = finding_severities(pair)
    assert severities[after.pk] is None
    assert severities[before.pk] == {
        FindingKey("CVE-1", "deb", "libssl3"): "critical",
        FindingKey("CVE-2", "deb", "tar"): "low",
    }


def test_indexes_are_compared_by_platform(pair):
    before, after = pair
    arm = dock.image("arm", architecture="arm64")
    dock.carry(arm, 0, dock.package("tar", "1.34"))
    comparison = compare(dock.index("old index", before), dock.index("new index", after, arm))
    assert [(item.platform, item.before, item.after) for item in comparison.platforms] == [
        ("linux/amd64", before, after),
        ("linux/arm64", None, arm),
    ]
    assert len(comparison.new) == 1


@pytest.mark.parametrize("more", [0, 40])
def test_compare_uses_constant_number_of_queries(pair, more):
    before, after = pair
    if more:
        packages = [dock.package(f"lib{number}", "1.0") for number in range(more)]
        dock.carry(after, 1, *packages)
        dock.advisory("CVE-9", "high", *packages)
    with CaptureQueriesContext(connection) as queries:
        assert len(compare(before, after).new) == 1 + more
    assert len(queries) == 7  # layers, packages, findings, and what cannot be judged or is decided (4)


def test_page_is_visible_only_to_users_who_see_both_images(pair):
    before, after = pair
    for name, image in (("shop/api", before), ("shop/api", after)):
        dock.push(dock.repository(name), image, image.digest[7:15])
    address = reverse("lifecycle:comparison", args=[before.digest, after.digest])
    viewer, stranger = Client(), Client()
    viewer.force_login(dock.user("vera", "viewer", of=dock.team("shop")), backend=BACKEND)
    stranger.force_login(dock.user("eve", "viewer", of=dock.team("other")), backend=BACKEND)
    page = viewer.get(address)
    assert page.status_code == 200
    assert "CVE-3" in page.content.decode()
    for tab in ("packages", "layers", "configuration"):
        assert viewer.get(address, {"tab": tab}).status_code == 200
    assert stranger.get(address).status_code == 404


def test_an_advisory_of_many_packages_is_one_line_with_its_packages() -> None:
    def line(osv_id: str, package: str, change: Change = Change.NEW) -> FindingLine:
        return FindingLine(change, "high", osv_id, "", package, "", "1.0", "", "")

    found = (line("CVE-1", "libssl3"), line("CVE-2", "curl"), line("CVE-1", "openssl"), line("CVE-1", "libssl3"))
    compared = Comparison(None, Image(), True, (), (), (*found, line("CVE-3", "zlib", Change.FIXED)))
    assert compared.new_advisories == (
        AdvisoryLine("high", "CVE-1", ("libssl3", "openssl")),
        AdvisoryLine("high", "CVE-2", ("curl",)),
    )
    assert [row.osv_id for row in compared.fixed_advisories] == ["CVE-3"]
