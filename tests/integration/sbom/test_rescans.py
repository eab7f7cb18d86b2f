"""Scans again where that gives more, and what a scan cannot see."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.cache import cache

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.sbom import rescans, services
from lifecycle.sbom.blind_spots import blind_spots
from lifecycle.sbom.contents import Contents, Found, LayerContents
from lifecycle.sbom.licences import Licences
from lifecycle.sbom.models import ContentCheck, ImageLicences, Sbom
from lifecycle.sbom.packages import Package
from lifecycle.sbom.services import Content, store
from tests.factories import dock

pytestmark = pytest.mark.django_db
CLEAN = Contents({})


def scanned(name: str, *purls: str, tool: str = "syft 1.10.0", contents: Contents | None = CLEAN, **more) -> Image:
    image = dock.image(name)
    content = Content(
        [Package(purl) for purl in purls], format="syft-json", tool=tool, document=name.encode(), contents=contents,
        licences=Licences(), **more,
    )  # fmt: skip
    store({image.pk: content}, actor=system_user())
    RepositoryImage.objects.create(repository=dock.repository("shop/api"), image=image)
    Job.objects.all().delete()
    image.refresh_from_db()
    return image


@pytest.fixture(autouse=True)
def _on(settings):
    settings.RESCANS_AT_ONCE = 2
    cache.clear()


def queued() -> dict[int, str]:
    return {job.subject_id: job.payload["why"] for job in Job.objects.filter(kind="scan").order_by("pk")}


def test_scans_that_would_give_more_are_queued_a_few_at_a_time_oldest_first(settings):
    first, second, third = (scanned(f"old {number}", "pkg:pypi/a@1", tool="syft 1.9.0") for number in range(3))
    newest = scanned("new", "pkg:pypi/a@1")
    assert rescans.queue_rescans() == 2
    why = "syft 1.10.0 sees more than syft 1.9.0"  # 9 is before 10
    assert queued() == {first.pk: why, second.pk: why}
    assert rescans.queue_rescans() == 1  # goes on where it stopped
    assert set(queued()) == {first.pk, second.pk, third.pk}
    assert rescans.queue_rescans() == 0  # those were asked for lately
    assert newest.pk not in queued()
    Job.objects.filter(kind="scan").update(created_at=clock.now() - timedelta(days=8))
    Job.objects.filter(kind="scan").update(state="failed", finished_at=clock.now())
    assert rescans.queue_rescans() == 2
    Job.objects.all().delete()
    settings.RESCANS_AT_ONCE = 0
    assert rescans.queue_rescans() == 0


def test_each_reason_has_its_words_and_a_good_scan_has_none():
    good, before = scanned("good", "pkg:pypi/a@1"), scanned("before", "pkg:pypi/a@1", contents=None)
    rules, lacks = scanned("rules", "pkg:pypi/a@1"), scanned("lacks", "pkg:pypi/a@1")
    ContentCheck.objects.filter(image=rules).update(rules_version=0)
    ImageLicences.objects.filter(image=lacks).delete()
    limited = scanned("limited", "pkg:pypi/a@1", contents=Contents({}, problem="Too many files."))
    fresh = scanned("fresh", "pkg:pypi/a@1", contents=Contents({}, problem="Too many files."))
    Sbom.objects.filter(image=limited).update(created_at=clock.now() - timedelta(days=31))
    outside, imported, unscanned = scanned("outside"), dock.image("imported"), dock.image("unscanned")
    RepositoryImage.objects.filter(image=outside).update(removed_at=clock.now())
    store({imported.pk: Content([Package("pkg:pypi/a@1")])}, actor=system_user())
    why = {scan.image_id: rescans.why_again(scan, "1.10.0") for scan in rescans.scans_of([
        good.pk, before.pk, rules.pk, lacks.pk, limited.pk, fresh.pk, outside.pk, imported.pk, unscanned.pk,
    ])}  # fmt: skip
    older = "it was scanned before files and licences were looked at"
    assert why == {
        good.pk: "", fresh.pk: "", before.pk: older, lacks.pk: older, rules.pk: "there are newer rules for secrets",
        limited.pk: "the last scan met a limit: Too many files.",
    }  # fmt: skip
    assert not rescans.is_newer("unknown", "1.10.0")
    assert not rescans.is_newer("", "1.10.0")


def test_new_images_come_first():
    scanned("old", "pkg:pypi/a@1", tool="syft 1.9.0")
    scanned("new", "pkg:pypi/a@1")
    for number in range(rescans.WAITING_MAX + 1):
        services.queue_scan(number + 10_000)
    assert rescans.queue_rescans() == 0


def test_the_page_says_what_the_scan_cannot_see(django_assert_num_queries):
    programs = Contents({0: LayerContents((Found("unowned", "app"),), {"unowned": 2})})
    debian = scanned("debian", "pkg:deb/debian/a@1?distro=debian-12", distro="debian-12")
    stripped = scanned("stripped", "pkg:pypi/a@1", distro="debian-12", contents=None, dropped_count=1)
    scratch = scanned("scratch", contents=programs)
    fresh = dock.image("fresh")
    images = [debian, stripped, scratch, fresh]
    with django_assert_num_queries(6):
        found = blind_spots(images)
    assert found[debian.pk] == ()
    assert [text.partition(",")[0].partition(".")[0] for text in found[stripped.pk]] == [
        "It is built on debian-12", "1 package has no package URL", "The files were not checked",
    ]  # fmt: skip
    assert found[scratch.pk][0].startswith("It has no package manager's database, as images from scratch.")
    assert found[scratch.pk][1].startswith("2 programs belong to no package.")
    assert found[fresh.pk] == ("Our own scan is not finished: nothing of this image was seen yet.",)
