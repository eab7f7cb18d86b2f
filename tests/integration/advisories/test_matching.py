"""Matches in the database: they agree with the OSV schema, open and close."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.queries import system_user
from lifecycle.advisories import services
from lifecycle.advisories.handlers import match
from lifecycle.advisories.matching import verdicts
from lifecycle.advisories.models import Advisory, Match
from lifecycle.evidence.findings import diff_of_images
from lifecycle.jobs.handlers import JobRun
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.services import claim, queue
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions.coordinates import coordinates
from lifecycle.versions.ecosystems import match_name, split_ecosystem
from tests.factories.advisories import record
from tests.factories.dock import carry, image
from tests.unit.advisories.test_ranges import DEMO, is_affected_by_schema, real_entries, versions_near_bounds

pytestmark = pytest.mark.django_db

SHARED = Path(__file__).parents[4] / "shared" / "data" / "osv"
OPENSSL = "pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12&upstream=openssl"
PURL_TYPES = {"Debian": "deb/debian", "PyPI": "pypi"}


def live() -> list[tuple[str, str]]:
    return sorted(Match.objects.filter(valid_to=None).values_list("package__purl", "advisory__osv_id"))


@pytest.mark.parametrize("per_package", [4, pytest.param(40, marks=pytest.mark.long)])
def test_matches_of_demo_advisories_agree_with_the_schema(per_package, stored):
    """Compare every demo record with versions around its bounds."""
    services.sync_feed(str(DEMO), feed_name="demo", actor=system_user())
    by_package: dict[tuple[str, str, str], list[tuple[str, dict]]] = {}
    for archive_record in demo_records():
        for entry in archive_record.get("affected", ()):  # a record of a CVE only has its severity
            ecosystem, release = split_ecosystem(entry["package"]["ecosystem"])
            name = match_name(ecosystem, entry["package"]["name"])
            by_package.setdefault((ecosystem, release, name), []).append((archive_record["id"], entry))
    expected, purls = set(), []
    for (ecosystem, release, name), entries in by_package.items():
        scheme = {"Debian": "dpkg", "PyPI": "pep440"}[ecosystem]
        versions = {version for _, entry in entries for version in versions_near_bounds(scheme, entry)}
        for version in random.Random(3).sample(sorted(versions), min(per_package, len(versions))):
            distro = f"?distro=debian-{release}" if release else ""
            purl = f"pkg:{PURL_TYPES[ecosystem]}/{name}@{version.replace('+', '%2B')}{distro}"
            if purl not in purls:
                purls.append(purl)
                expected |= {(purl, i) for i, entry in entries if is_affected_by_schema(scheme, entry, version)}
    rows = [stored(purl) for purl in purls]
    services.match_packages([row.pk for row in rows])
    assert len(purls) > 8 * per_package
    assert len(expected) > 80 * per_package
    assert set(live()) == expected
    parsed = [coordinates(purl) for purl in purls]
    names = dict(Advisory.objects.values_list("pk", "osv_id"))
    assert {(purls[item.position], names[item.advisory_id]) for item in verdicts(parsed)} == expected


def demo_records():
    import json
    import zipfile

    for archive in DEMO.glob("*/all.zip"):
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                advisory = json.loads(opened.read(name))
                if not advisory.get("withdrawn"):
                    yield advisory


def test_demo_data_contains_enough_real_entries():
    assert len(real_entries(DEMO, 1, 10)) >= 20


def test_advisory_without_release_matches_every_package_with_release(export, stored):
    """A package without a release matches no advisory."""
    export.put("Debian", record("A-1", ecosystem="Debian"), record("A-2", ecosystem="Debian:11"))
    twelve, eleven = stored(OPENSSL), stored(OPENSSL.replace("-12", "-11"))
    stored("pkg:deb/debian/openssl@3.0.1-1")
    export.sync()
    assert live() == sorted([(twelve.purl, "A-1"), (eleven.purl, "A-1"), (eleven.purl, "A-2")])


def test_ubuntu_pro_advisories_match_only_when_enabled(export, stored, settings):
    package = stored("pkg:deb/ubuntu/openssl@3.0.1-1?distro=ubuntu-22.04")
    export.put("Ubuntu", record("U-1", ecosystem="Ubuntu:22.04:LTS"), record("U-2", ecosystem="Ubuntu:Pro:22.04:LTS"))
    export.sync()
    assert live() == [(package.purl, "U-1")]
    settings.UBUNTU_PRO = True
    services.match_packages([package.pk])
    assert live() == [(package.purl, "U-1"), (package.purl, "U-2")]


def test_maven_versions_are_compared_in_python(export, stored):
    events = [{"introduced": "2.0-beta9"}, {"fixed": "2.15.0"}]
    export.put("Maven", record("G-1", name="g:a", ecosystem="Maven", events=events))
    inside = stored("pkg:maven/g/a@2.14.0-rc1")
    stored("pkg:maven/g/a@2.15.0")
    stored("pkg:maven/g/a@2.0-alpha1")
    export.sync()
    assert live() == [(inside.purl, "G-1")]


def test_unparsable_version_matches_by_exact_text(export, stored):
    export.put("PyPI", {
        "id": "P-1", "modified": "2026-01-01T00:00:00Z",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "x"}, "versions": ["weird one", "1.0"]}],
    })  # fmt: skip
    weird, fine = stored("pkg:pypi/x@weird%20one"), stored("pkg:pypi/x@1.0.0")
    stored("pkg:pypi/x@weird%20two")
    export.sync()
    assert live() == sorted([(weird.purl, "P-1"), (fine.purl, "P-1")])


def test_fixed_version_is_highest_of_several_intervals(export, stored):
    first = record("A-1", fixed="3.0.12-1")
    first["affected"] += record("A-1", fixed="3.0.20-1")["affected"]
    export.put("Debian", first)
    stored(OPENSSL)
    export.sync()
    assert Match.objects.get().fixed_version == "3.0.20-1"


def test_match_is_updated_in_place_when_only_the_fix_changes(export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1", events=[{"introduced": "0"}]))
    export.sync()
    before = Match.objects.get()
    export.put("Debian", {**record("A-1"), "modified": "2026-02-01T00:00:00Z"})
    export.sync()
    after = Match.objects.get()
    assert (after.pk, after.valid_from) == (before.pk, before.valid_from)
    assert (before.fixed_version, after.fixed_version) == ("", "3.0.14-1")


def test_sync_updates_risk_only_of_images_with_the_package(export, stored):
    mine, other = image("mine"), image("other")
    carry(mine, 0, stored(OPENSSL))
    carry(mine, 1, PackageVersion.objects.get())
    carry(other, 0, stored("pkg:pypi/x@1.0"))
    export.put("Debian", record("A-1", database_specific={"severity": "HIGH"}), record("A-2"))
    export.sync()
    mine.refresh_from_db()
    other.refresh_from_db()
    assert (mine.high_count, mine.unknown_count, mine.fixable_count, mine.finding_count) == (1, 1, 2, 2)
    assert (other.finding_count, other.risk_at) == (0, other.scanned_at)


def test_diff_lists_fixed_new_and_remaining_across_versions(export, stored):
    before, after = image("before"), image("after")
    carry(before, 0, stored(OPENSSL))
    carry(after, 0, stored(OPENSSL.replace("3.0.11", "3.0.14")), stored("pkg:pypi/x@1.0"))
    export.put("Debian", record("A-1"), record("A-2", fixed="3.0.20-1"))
    export.put("PyPI", record("P-1", name="x", ecosystem="PyPI", fixed="2"))
    export.sync()
    diff = diff_of_images(before, after)
    ids = [[item.advisory.osv_id for item in part] for part in (diff.fixed, diff.new, diff.remaining)]
    assert ids == [["A-1"], ["P-1"], ["A-2"]]


@pytest.mark.parametrize("count", [1, 300])
def test_match_packages_uses_constant_number_of_queries(export, stored, count):
    export.put("Debian", record("A-1"))
    export.sync()
    rows = [stored(OPENSSL.replace("libssl3", f"libssl{number}")) for number in range(count)]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert len(services.match_packages([row.pk for row in rows])) == count
    assert (
        len([q for q in queries if "SAVEPOINT" not in q["sql"]]) == 10
    )  # lock, Maven, match, note, alerts, lock, counts, VEX, images, malicious


def test_match_job_matches_packages_of_its_payload(export, stored):
    export.put("Debian", record("A-1"))
    export.sync()
    package = stored(OPENSSL)
    job = queue(kind_called("match"), subject_id=1, actor=system_user(), payload={"package_ids": [package.pk]})
    held = claim(job.pk, worker="w")
    assert held is not None
    match(JobRun(held))
    match(JobRun(held))  # a second delivery
    assert live() == [(package.purl, "A-1")]
