"""The whole way, without made-up rows: a scan, feeds that change on disk, and what teams are told."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from django.db import transaction

from accounts.queries import system_user
from lifecycle.advisories import first_loads
from lifecycle.advisories.exploit_sync import sync_exploits
from lifecycle.advisories.models import Feed
from lifecycle.alerts import passes
from lifecycle.alerts.models import Alert, SeenFinding
from lifecycle.core import clock
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.sbom import services
from lifecycle.sbom.packages import Package
from lifecycle.sbom.services import Content
from tests.factories import dock
from tests.factories.advisories import Export, record

pytestmark = pytest.mark.django_db
OPENSSL = "pkg:deb/debian/openssl@3.0.11-1?distro=debian-12"
ZLIB = "pkg:deb/debian/zlib1g@1.2.13?distro=debian-12"
LATE = "2026-11-30T00:00:00Z"


def scan(name, *purls):
    image = dock.image(name, layers=1)
    dock.push(dock.repository("shop/api"), image, name)
    services.store({image.pk: Content([Package(purl) for purl in purls])}, actor=system_user())
    for job in Job.objects.filter(kind="match", state="waiting"):
        running.run(job.pk)
    return image


def look():
    with transaction.atomic():
        return sorted((row.kind, row.vulnerability) for row in passes.look_now(clock.now()))


def kev(path, *cves):
    listed = [
        {"cveID": cve, "dateAdded": "2026-11-01", "vendorProject": "x", "product": "x", "vulnerabilityName": "x",
         "shortDescription": "x", "requiredAction": "x", "dueDate": "2026-11-22",
         "knownRansomwareCampaignUse": "Unknown"}
        for cve in cves
    ]  # fmt: skip
    document = {"title": "x", "catalogVersion": "2026.11.01", "dateReleased": "2026-11-01T00:00:00.000Z",
                "count": len(listed), "vulnerabilities": listed}  # fmt: skip
    path.write_text(json.dumps(document))
    sync_exploits("kev", str(path), feed_name="kev", actor=system_user())


def test_teams_are_told_the_difference_and_nothing_else(tmp_path):
    export = Export(tmp_path / "export")
    passes.remember_all(clock.now(), lambda function: function())
    scan("1.0", OPENSSL)
    export.put("Debian", record("CVE-2026-0001"))
    assert export.sync().packages_rematched == 1
    assert look() == []  # the first load of the feed
    export.put("Debian", record("CVE-2026-0002"))
    export.sync()
    assert look() == [("finding.new", "CVE-2026-0002")]
    export.sync()
    assert look() == []

    scan("2.0", OPENSSL, ZLIB)  # a new image with a new package
    export.put("Debian", record("CVE-2026-0003", "zlib", fixed="1.3"))
    scan("3.0", "pkg:deb/debian/openssl@3.0.12-1?distro=debian-12")
    assert look() == []  # what a scan of a new image finds

    kev(tmp_path / "kev.json", "CVE-2026-0001")
    assert look() == []  # the first list
    kev(tmp_path / "kev.json", "CVE-2026-0001", "CVE-2026-0002")
    assert look() == [("finding.exploited", "CVE-2026-0002")]
    severe = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]
    export.put("Debian", record("CVE-2026-0001", modified=LATE, severity=severe))
    export.sync()
    assert ("finding.worsened", "CVE-2026-0001") in look()

    export.put("Debian", record("CVE-2026-0002", modified=LATE, fixed="3.0.10-1"))  # it was never affected
    export.sync()
    look()
    states = dict(Alert.objects.filter(vulnerability="CVE-2026-0002").values_list("kind", "state"))
    assert states == {"finding.new": "resolved", "finding.exploited": "resolved", "finding.fixed": "resolved"}
    assert {row.images for row in Alert.objects.filter(kind="finding.worsened")} == {3}


def test_severity_from_a_feed_that_is_loaded_the_first_time_is_no_rise(tmp_path):
    export, other = Export(tmp_path / "export"), Export(tmp_path / "other")
    passes.remember_all(clock.now(), lambda function: function())
    scan("1.0", OPENSSL)
    export.put("Debian", record("CVE-2026-0001"))
    export.sync()
    assert look() == []

    def rate(modified, rest):
        rated = [{"type": "CVSS_V3", "score": f"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/{rest}"}]
        other.put("Debian", record("GHSA-1", "x", modified=modified, severity=rated, aliases=["CVE-2026-0001"]))
        other.sync("other")

    rate("2026-11-01T00:00:00Z", "I:N/A:N")
    assert look() == []  # the first load of the other feed
    assert SeenFinding.objects.get().severity == "high"
    rate(LATE, "I:H/A:H")
    assert look() == [("finding.worsened", "CVE-2026-0001")]
    assert Alert.objects.get().severity == "critical"


def test_first_load_of_each_folder_is_no_difference_and_a_broken_one_stops_no_other(tmp_path):
    export = Export(tmp_path / "export")
    passes.remember_all(clock.now(), lambda function: function())
    scan("1.0", OPENSSL)

    def sync(directory, *names):
        export.put(directory, *(record(name) for name in names))
        export.sync()
        return look()

    export.put("Late", record("CVE-2026-0001"))
    (tmp_path / "export/Late/modified_id.csv").write_text("x" * 200_000)
    assert sync("Debian", "CVE-2026-0002") == []
    assert sync("Debian", "CVE-2026-0003") == [("finding.new", "CVE-2026-0003")]
    assert sync("Late", "CVE-2026-0004") == []  # it can be read now
    assert sync("Late", "CVE-2026-0005") == [("finding.new", "CVE-2026-0005")]
    assert sync("New", "CVE-2026-0006") == []
    assert sync("New", "CVE-2026-0007") == [("finding.new", "CVE-2026-0007")]

    # One that breaks off each time is told about after a week, until it was read to its end.
    feed = Feed.objects.get()
    first_loads.expect(feed, ["Half"])
    first_loads.note(feed, whole=(), partly={"Half"})
    assert sync("Half", "CVE-2026-0008") == []
    first_loads.expect(feed, ["Half 2"])
    first_loads.note(feed, whole=(), partly={"Half 2"})
    feed.refresh_from_db()
    told_from = datetime.fromisoformat(feed.loaded_folders["Half 2"])
    assert timedelta(days=6) < told_from - clock.now() < timedelta(days=8)
    assert datetime.fromisoformat(feed.loaded_folders["Half"]) < clock.now()
