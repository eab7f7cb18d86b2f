"""Images with a malicious package are quarantined at once, and stay free when people decided so."""

from __future__ import annotations

import pytest

from accounts.queries import system_user
from lifecycle import events
from lifecycle.core import clock
from lifecycle.evidence import handlers
from lifecycle.evidence.malicious import hold_images
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covers_of
from lifecycle.quarantine.services import exempt, quarantine, release, request_release
from lifecycle.registry.models import RepositoryImage
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


def people():
    return [dock.user(name, "owner", of=dock.team("shop")) for name in ("ann", "kim")]


def lift(row, ann, kim):
    request_release(row.pk, actor=ann, reason="A false alarm.")
    release(row.pk, actor=kim)


def derived_on(image, bad, name="derived", **more):
    made = dock.image(name, layers=5, under=image)
    dock.carry(made, 0, bad)
    dock.derive(image, made, **more)
    dock.push(dock.repository(f"shop/{name}"), made, "1")
    return made


def arrive(export, *records):
    for record in records or ("MAL-2026-1",):
        export.put("PyPI", malicious(record))
    export.sync()
    run_jobs()


def live():
    return {(row.image_id, row.incident) for row in Quarantine.objects.filter(released_at=None)}


@pytest.mark.parametrize(("incident", "is_held"), [("INC-7", True), ("", True), ("INC-7 MAL-2026-1", False)])
def test_only_a_quarantine_for_the_same_record_spares_what_it_covers(export, bad, image, incident, is_held):
    ann, _ = people()
    base = dock.image("base")
    dock.push(dock.repository("shop/base"), base, "1")
    dock.derive(base, image)
    row = quarantine(base.digest, actor=ann, reason="Stolen key.", incident=incident)
    arrive(export)
    assert live() - {(base.pk, row.incident)} == ({(image.pk, "MAL-2026-1")} if is_held else set())


@pytest.mark.parametrize(("incident", "is_held"), [("INC-7", True), ("MAL-2026-1", False)])
def test_only_an_exemption_for_the_same_record_frees_an_image(export, bad, image, incident, is_held):
    ann, kim = people()
    base = dock.image("base")
    dock.push(dock.repository("shop/base"), base, "1")
    dock.derive(base, image)
    row = quarantine(base.digest, actor=ann, reason="Stolen key.", incident=incident)
    exempt(row.pk, image.digest, actor=kim, reason="Does not contain it.")
    arrive(export)
    assert ((image.pk, "MAL-2026-1") in live()) == is_held


def test_image_is_held_when_another_quarantine_of_it_ends(export, bad, image):
    ann, kim = people()
    row = quarantine(image.digest, actor=ann, reason="Stolen key.", incident="INC-7")
    arrive(export)
    assert live() == {(image.pk, "INC-7")}
    lift(row, ann, kim)
    run_jobs()
    assert live() == {(image.pk, "MAL-2026-1")}


def test_what_a_lifted_quarantine_covered_is_held_for_its_own_records(export, bad, image):
    ann, kim = people()
    base = dock.image("base")
    dock.push(dock.repository("shop/base"), base, "1")
    dock.derive(base, image)
    row = quarantine(base.digest, actor=ann, reason="Other one.", incident="MAL-2026-1")
    arrive(export, "MAL-2026-1", "MAL-2026-2")
    assert live() == {(base.pk, "MAL-2026-1")}
    lift(row, ann, kim)
    run_jobs()
    assert live() == {(image.pk, "MAL-2026-2")}  # not for the one that people released


@pytest.mark.parametrize("as_index", [False, True])
def test_image_that_comes_back_is_held(export, bad, image, as_index):
    where = dock.repository("shop/app")
    RepositoryImage.objects.update(removed_at=clock.now())
    arrive(export)
    assert live() == set()
    RepositoryImage.objects.update(removed_at=None)
    top = dock.index("top", image) if as_index else image
    events.publish(events.TagMoved(where.pk, "1", top.pk))
    run_jobs()
    assert live() == {(image.pk, "MAL-2026-1")}


@pytest.mark.parametrize(("confidence", "is_held"), [("high", False), ("medium", False), ("low", True)])
def test_release_of_a_base_counts_for_what_is_built_on_it(export, bad, image, confidence, is_held):
    arrive(export)
    lift(Quarantine.objects.get(), *people())
    run_jobs()
    derived = derived_on(image, bad, confidence=confidence)
    hold_images([bad.pk])
    assert live() == ({(derived.pk, "MAL-2026-1")} if is_held else set())


def test_release_counts_for_all_records_of_the_quarantine(export, bad, image):
    records = [f"MAL-2026-{number}" for number in range(1, 8)]
    arrive(export, *records)
    row = Quarantine.objects.get()
    assert row.incident.split() == records
    lift(row, *people())
    run_jobs()
    assert hold_images([bad.pk]) == []
    assert live() == set()


def test_incident_keeps_whole_names(export, bad, image):
    arrive(export, *(f"MAL-2026-{number}" for number in range(100, 140)))
    row = Quarantine.objects.get()
    assert 280 < len(row.incident) <= 300
    assert {len(record) for record in row.incident.split()} == {len("MAL-2026-100")}
