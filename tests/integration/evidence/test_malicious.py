"""Images with a malicious package are quarantined at once, and stay free when people decided so."""

from __future__ import annotations

import pytest

from accounts.queries import system_user
from lifecycle.evidence import handlers
from lifecycle.evidence.malicious import hold_images
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covers_of
from lifecycle.quarantine.services import release, request_release
from lifecycle.versions.coordinates import coordinates
from tests.factories import dock
from tests.factories.advisories import Export

pytestmark = pytest.mark.django_db


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path / "export")


@pytest.fixture
def bad():
    package = dock.package("evil", "1.0", kind="pypi")
    package.version_key = coordinates(package.purl).key
    package.save(update_fields=["version_key"])
    return package


@pytest.fixture
def image(bad):
    made = dock.image("app")
    dock.carry(made, 0, bad)
    dock.push(dock.repository("shop/app"), made, "1")
    return made


def malicious(osv_id="MAL-2026-1", **more):
    affected = {"package": {"ecosystem": "PyPI", "name": "evil"}, "versions": ["1.0"]}
    return {"id": osv_id, "modified": "2026-01-01T00:00:00Z", "affected": [affected], **more}


def run_jobs():
    for job in Job.objects.filter(kind="hold_malware", state="waiting").order_by("pk"):
        running.run(job.pk)


@pytest.mark.parametrize("named", [{"osv_id": "MAL-2026-1"}, {"osv_id": "GHSA-aaaa", "aliases": ["MAL-2026-1"]}])
def test_record_that_arrives_quarantines_the_images(export, image, named):
    export.put("PyPI", malicious(**named))
    export.sync()
    run_jobs()
    row = Quarantine.objects.get()
    assert (row.image, row.state, row.incident, row.descendants) == (image, "active", "MAL-2026-1", True)
    assert row.reason.startswith("Malicious package: evil 1.0 (MAL-2026-1).")


def test_other_record_about_the_same_package_quarantines_nothing(export, image):
    export.put("PyPI", malicious("GHSA-aaaa", database_specific={"severity": "CRITICAL"}))
    export.sync()
    run_jobs()
    assert not Quarantine.objects.exists()
    image.refresh_from_db()
    assert image.critical_count == 1


def test_image_that_arrives_later_is_quarantined(export, bad, image):
    from lifecycle import events

    export.put("PyPI", malicious())
    export.sync()
    run_jobs()
    later = dock.image("later")
    dock.carry(later, 0, bad)
    dock.push(dock.repository("shop/later"), later, "1")
    events.publish(events.ImagesScanned((later.pk,), (), system_user().pk))
    run_jobs()
    assert set(Quarantine.objects.values_list("image", flat=True)) == {image.pk, later.pk}


def test_image_built_on_a_quarantined_one_is_covered_by_it(export, bad, image):
    derived = dock.image("derived", layers=5, under=image)
    dock.carry(derived, 0, bad)
    dock.derive(image, derived)
    dock.push(dock.repository("shop/derived"), derived, "1")
    export.put("PyPI", malicious())
    export.sync()
    run_jobs()
    assert [row.image for row in Quarantine.objects.all()] == [image]
    assert set(covers_of([image.pk, derived.pk])) == {image.pk, derived.pk}


def test_released_image_stays_free_for_the_same_record_only(export, bad, image):
    team = dock.team("shop")
    first, second = (dock.user(name, "owner", of=team) for name in ("ann", "kim"))
    export.put("PyPI", malicious())
    export.sync()
    run_jobs()
    row = Quarantine.objects.get()
    request_release(row.pk, actor=first, reason="A false alarm.")
    release(row.pk, actor=second)
    assert hold_images([bad.pk]) == []
    export.put("PyPI", malicious("MAL-2026-2"))
    export.sync()
    run_jobs()
    assert [one.incident for one in Quarantine.objects.filter(released_at=None)] == ["MAL-2026-2"]


def test_a_job_for_many_packages_takes_no_other_ones_place():
    many = list(range(1_000_000, 1_000_100))
    handlers._queue_holds(many)
    handlers._queue_holds([*many[:-1], 2_000_000])
    handlers._queue_holds(many)
    assert [job.payload["package_ids"][-1] for job in Job.objects.order_by("pk")] == [many[-1], 2_000_000]
