"""Records of one vulnerability under several names count once, and share what any of them knows of its severity."""

from __future__ import annotations

import itertools
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from accounts.queries import system_user
from lifecycle.advisories.grouping import regroup
from lifecycle.advisories.models import Advisory, Feed
from lifecycle.advisories.queries import current_names
from lifecycle.authority.services import create_environment
from lifecycle.comparison.queries import compare
from lifecycle.evidence.exporting import export as export_of
from lifecycle.evidence.findings import diff_of_images, finding_severities, findings_of_image, matches_of_images
from lifecycle.evidence.risk import refresh_risk
from lifecycle.pages.registry.findings import findings_by_layer, findings_of
from lifecycle.promotion import services as promotions
from tests.factories import dock
from tests.factories.advisories import Export, record

pytestmark = pytest.mark.django_db
HIGH = {"database_specific": {"severity": "HIGH"}}
# (id, names that the record gives) of one vulnerability, as GHSA, CVE, PYSEC and Debian write it.
FOUR: list[dict[str, Any]] = [
    {"osv_id": "GHSA-aaaa", "aliases": ["CVE-2024-1"]},
    {"osv_id": "PYSEC-2024-7", "aliases": ["GHSA-aaaa"]},
    {"osv_id": "CVE-2024-1"},
    {"osv_id": "DEBIAN-CVE-2024-1", "upstream": ["CVE-2024-1"]},
]


def pypi(osv_id: str, **more: Any) -> dict[str, Any]:
    return record(osv_id, name="a", ecosystem="PyPI", fixed="2.0", **more)


def vulnerabilities() -> dict[str, str]:
    return dict(Advisory.objects.values_list("osv_id", "vulnerability"))


@pytest.fixture
def image(stored):
    made = dock.image("made")
    dock.carry(made, 0, stored("pkg:pypi/a@1.0"))
    return made


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=lambda order: "".join(map(str, order)))
def test_vulnerability_of_four_names_counts_once_in_any_order_of_feeds(export, image, order):
    for number in order:  # each name comes from its own feed
        feed = Export(export.root / str(number))
        feed.put("PyPI", pypi(**FOUR[number]))
        feed.sync(f"feed {number}")
    assert set(vulnerabilities().values()) == {"CVE-2024-1"}
    image.refresh_from_db()
    key_counts = finding_severities([image])[image.pk]
    lines = compare(None, image).findings
    assert (image.finding_count, len(key_counts), len(lines), len(matches_of_images([image.pk]))) == (1, 1, 1, 1)
    assert [line.osv_id for line in lines] == ["CVE-2024-1"]
    assert [row.advisory.vulnerability for row in findings_of(image)] == ["CVE-2024-1"]
    assert [share.count for share in findings_by_layer(image)] == [1]
    assert len(diff_of_images(image, dock.image("empty")).fixed) <= 1


def test_record_about_several_vulnerabilities_is_none_of_them(export, image):
    export.put(
        "PyPI", pypi("CVE-1-1"), pypi("CVE-2024-1"), pypi("CVE-2024-2"),
        pypi("DSA-1", upstream=["CVE-2024-1", "CVE-2024-2"]),
    )  # fmt: skip
    export.sync()
    assert {key: vulnerabilities()[key] for key in ("CVE-2024-1", "CVE-2024-2", "DSA-1")} == {
        "CVE-2024-1": "CVE-2024-1", "CVE-2024-2": "CVE-2024-2", "DSA-1": "DSA-1",
    }  # fmt: skip


def test_names_part_when_a_record_stops_naming_the_other(export, image):
    export.put("PyPI", pypi("GHSA-aaaa", aliases=["CVE-2024-1"]), pypi("CVE-2024-1"))
    export.sync()
    image.refresh_from_db()
    assert image.finding_count == 1
    export.put("PyPI", {**pypi("GHSA-aaaa"), "modified": "2026-02-01T00:00:00Z"})
    export.sync()
    image.refresh_from_db()
    assert (vulnerabilities()["GHSA-aaaa"], image.finding_count) == ("GHSA-aaaa", 2)


def test_names_part_when_the_record_between_them_disappears(export, image):
    export.put("PyPI", pypi("A-1"), pypi("A-2"), pypi("A-3", aliases=["A-1", "A-2"]))
    export.sync()
    image.refresh_from_db()
    assert image.finding_count == 1
    export.drop("PyPI", "A-3")
    export.sync()
    image.refresh_from_db()
    assert image.finding_count == 2


@pytest.mark.parametrize("relation", ["aliases", "upstream", "related"])
@pytest.mark.parametrize("is_first", [True, False])
def test_severity_comes_from_a_record_that_knows_it(export, image, relation, is_first):
    """In any order of arrival, and with its source."""
    silent, known = pypi("X-1", **{relation: ["CVE-2024-1"]}), record("CVE-2024-1", name="b", ecosystem="PyPI", **HIGH)
    for item in (silent, known) if is_first else (known, silent):
        export.put("PyPI", item)
        export.sync()
    made = Advisory.objects.get(osv_id="X-1")
    assert (made.severity, made.severity_source, made.own_severity) == ("high", "CVE-2024-1", "unknown")
    image.refresh_from_db()
    assert (image.high_count, image.unknown_count) == (1, 0)
    export.put("PyPI", {**silent, "database_specific": {"severity": "LOW"}, "modified": "2026-02-01T00:00:00Z"})
    export.sync()  # the record's own severity wins over that of another record
    made.refresh_from_db()
    assert (made.severity, made.severity_source) == ("low", "")


@pytest.mark.parametrize("is_first", [True, False])
def test_bundle_takes_its_severity_from_any_record_of_the_vulnerabilities_that_it_names(export, is_first):
    """It names CVE ids, and only a record under another name of one of them knows the severity."""
    bundle = pypi("DSA-1", upstream=["CVE-2024-1", "CVE-2024-2"])
    known = record("GHSA-aaaa", name="b", ecosystem="PyPI", aliases=["CVE-2024-2"], **HIGH)
    for item in (bundle, known) if is_first else (known, bundle):
        export.put("PyPI", item)
        export.sync()
    made = Advisory.objects.get(osv_id="DSA-1")
    assert (made.vulnerability, made.severity, made.severity_source) == ("DSA-1", "high", "GHSA-aaaa")
    assert made.severity_by == "GHSA-aaaa"
    export.put(
        "PyPI", {**known, "database_specific": {"severity": "LOW"}, "modified": "2026-02-01T00:00:00Z"}
    )  # fmt: skip
    assert export.sync().stored == 1  # only the changed record is read, and the bundle follows it
    made.refresh_from_db()
    assert (made.severity, made.severity_source) == ("low", "GHSA-aaaa")


@pytest.mark.parametrize(("count", "merged"), [(32, {"CVE-2024-0"}), (33, {"X-1", "CVE-2024-0", "CVE-2024-1"})])
def test_record_with_too_many_aliases_merges_nothing(export, count, merged):
    names = [f"CVE-2024-{number}" for number in range(count)]
    export.put("PyPI", pypi("CVE-2024-0", **HIGH), pypi("CVE-2024-1"), pypi("X-1", aliases=names))
    export.sync()
    assert set(vulnerabilities().values()) == merged
    assert Advisory.objects.get(osv_id="X-1").severity == "high"  # its names still tell what they know


def test_cve_record_counts_only_where_no_other_record_rates_the_vulnerability(export):
    export.put("PyPI", pypi("GHSA-aaaa", aliases=["CVE-2024-1"]), pypi("GHSA-bbbb", aliases=["CVE-2024-2"], **HIGH),
               pypi("PYSEC-2", aliases=["GHSA-bbbb"]))  # fmt: skip
    export.sync()
    feed = Feed.objects.create(name="nvd", kind=Feed.Kind.CVE, location="x")
    for number in (1, 2):
        Advisory.objects.create(feed=feed, osv_id=f"CVE-2024-{number}", directory="", modified="x",
                                severity="critical", own_severity="critical")  # fmt: skip
    regroup(["CVE-2024-1", "CVE-2024-2"])
    rated = {row.osv_id: (row.severity, row.severity_by) for row in Advisory.objects.exclude(feed=feed)}
    assert rated == {
        "GHSA-aaaa": ("critical", "CVE-2024-1"), "GHSA-bbbb": ("high", "GHSA-bbbb"), "PYSEC-2": ("high", "GHSA-bbbb"),
    }  # fmt: skip


def test_group_and_bundle_know_all_their_cve_ids(export):
    export.put("PyPI", pypi("GHSA-aaaa", aliases=["CVE-2024-2", "CVE-2024-1"]), pypi("PYSEC-1", aliases=["GHSA-aaaa"]),
               pypi("DSA-1", upstream=["CVE-2024-8", "CVE-2024-9"], aliases=["DSA-1-1"]))  # fmt: skip
    export.sync()
    assert dict(Advisory.objects.values_list("osv_id", "cves")) == {
        "GHSA-aaaa": ["CVE-2024-1", "CVE-2024-2"], "PYSEC-1": ["CVE-2024-1", "CVE-2024-2"],
        "DSA-1": ["CVE-2024-8", "CVE-2024-9"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "cves"),
    [
        ({"related": ["CVE-2024-8", "RHSA-1"]}, ["CVE-2024-8"]),
        ({"related": ["CVE-2024-8"], "aliases": ["CVE-2024-9"]}, ["CVE-2024-9"]),
        ({"related": ["CVE-2024-8"], "upstream": ["CVE-2024-9"]}, ["CVE-2024-9"]),
        ({"aliases": [f"CVE-2024-{1000 + n}" for n in range(33)]}, [f"CVE-2024-{1000 + n}" for n in range(33)]),
        ({"related": ["RHSA-1"]}, []),
    ],
)
def test_record_without_a_cve_of_its_own_has_those_of_its_aliases_else_related_records(export, fields, cves):
    export.put("PyPI", pypi("ALSA-2024:1", **fields))
    export.sync()
    assert Advisory.objects.get().cves == cves


def test_stored_records_without_cves_are_grouped_again(export):
    export.put("PyPI", pypi("ALSA-2024:1", related=["CVE-2024-8"]), pypi("X-1"), pypi("CVE-2024-1"))
    export.sync()
    Advisory.objects.filter(osv_id="ALSA-2024:1").update(cves=[])
    import_module("lifecycle.migrations.0058_group_related_cves").mark(None, SimpleNamespace(connection=connection))
    assert list(Advisory.objects.filter(is_grouped=False).values_list("osv_id", flat=True)) == ["ALSA-2024:1"]
    export.sync()
    assert Advisory.objects.get(osv_id="ALSA-2024:1").cves == ["CVE-2024-8"]


def test_exports_and_api_count_a_vulnerability_once_and_the_command_lists_each_record(export, image):
    export.put("PyPI", pypi("GHSA-aaaa", aliases=["CVE-2024-1"], **HIGH), pypi("PYSEC-2024-7", aliases=["GHSA-aaaa"]))
    export.sync()
    image.refresh_from_db()
    once, each = findings_of_image(image), findings_of_image(image, each_record=True)
    assert [(found.vulnerability, found.severity) for found in once] == [("CVE-2024-1", "high")]
    assert [(found.advisory, found.severity_source) for found in each] == [
        ("GHSA-aaaa", ""), ("PYSEC-2024-7", "GHSA-aaaa"),
    ]  # fmt: skip
    assert image.finding_count == 1
    rows = b"".join(export_of(image, "findings.csv", metadata={})[1]).decode().splitlines()
    assert len(rows) == 1 + image.finding_count
    assert rows[1].startswith("pkg:pypi/a@1.0,CVE-2024-1,")


def test_severity_stays_unknown_when_no_record_knows_it(export, image):
    export.put("PyPI", pypi("X-1", aliases=["CVE-2024-1"], related=["CVE-9"]), record("CVE-8", name="b", **HIGH))
    export.sync()
    made = Advisory.objects.get(osv_id="X-1")
    assert (made.severity, made.severity_source) == ("unknown", "")


def test_approval_holds_when_another_name_appears_and_lapses_for_a_new_vulnerability(export, dock_of_shop):
    repository, image, staging, asker, approver = dock_of_shop
    export.put("PyPI", pypi("GHSA-aaaa", **HIGH))
    export.sync()
    request = promotions.request_promotion(repository, image.digest, staging, actor=asker, reason="release")
    promotions.approve(request.pk, actor=approver)
    export.put("PyPI", pypi("CVE-2024-1", aliases=["GHSA-aaaa"], **HIGH))
    export.sync()
    assert set(vulnerabilities().values()) == {"CVE-2024-1"}  # it is shown under another name than at the vote
    promotions.reevaluate(request)
    assert request.votes.get().lapsed_at is None
    export.put("PyPI", pypi("CVE-2024-2", **HIGH))
    export.sync()
    promotions.reevaluate(request)
    assert request.votes.get().lapse_reason == "New findings since the vote: CVE-2024-2 a."


@pytest.fixture
def dock_of_shop(image):
    team = dock.team("shop")
    repository = dock.repository("shop/api", team)
    asker, approver = dock.user("asker", "owner", of=team), dock.user("approver", "approver", of=team)
    dock.push(repository, image, "1.0", asker)
    staging = create_environment(
        team, actor=system_user(), slug="staging", name="Staging", prefix="staging", required_approvals=1
    )
    return repository, image, staging, asker, approver


def test_current_names_know_records_aliases_and_upstream(export):
    export.put("PyPI", pypi("X-1", aliases=["Y-1"], upstream=["CVE-2024-1"]))
    export.sync()
    names = current_names(["X-1", "Y-1", "CVE-2024-1", "Z-1"])
    assert names == {name: {"CVE-2024-1"} for name in ("X-1", "Y-1", "CVE-2024-1")}


def test_advisories_of_an_older_version_are_grouped_by_the_next_synchronisation(export, image):
    export.put("PyPI", pypi("GHSA-aaaa", aliases=["CVE-2024-1"]), pypi("CVE-2024-1"))
    export.sync()
    for row in Advisory.objects.all():
        Advisory.objects.filter(pk=row.pk).update(vulnerability=row.osv_id, is_grouped=False)
    refresh_risk([image.pk])
    image.refresh_from_db()
    assert image.finding_count == 2
    export.sync()
    image.refresh_from_db()
    assert image.finding_count == 1
    assert regroup(["GHSA-aaaa"]) == set()  # safe to run twice
