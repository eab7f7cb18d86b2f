"""What a rebuild is expected to fix, and what it fixed. Whole waves over a registry in memory."""

from __future__ import annotations

import pytest

from lifecycle.core import clock
from lifecycle.jobs.models import Job
from lifecycle.rebuild import estimates, planning
from lifecycle.rebuild.models import RebuildJob, Recipe
from lifecycle.registry.models import Image
from tests.factories import dock

pytestmark = pytest.mark.django_db
State = RebuildJob.State


def test_estimated_fixes_are_verified_after_the_rebuild(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    package = yard.tag("base/debian").image_inventories.get().inventory.inventory_packages.get().package
    dock.advisory("CVE-1", "high", package, fixed="2")
    dock.advisory("CVE-2", "low", package)
    new = yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    newer = new.image_inventories.get().inventory.inventory_packages.get().package
    still = dock.advisory("CVE-3", "low", newer)
    still.matches.create(package=package)
    wave = yard.wave()
    assert wave.jobs.get().would_fix == ["CVE-1", "CVE-2"]
    wave.jobs.update(would_fix=["CVE-1", "CVE-2", "CVE-3"])  # as if the new base had more fixed findings at planning
    yard.settle()
    job = wave.jobs.get()
    assert (job.fixed, job.introduced, job.still_open) == (["CVE-1", "CVE-2"], [], ["CVE-3"])
    assert (job.findings_before, job.findings_after, job.remaining_count) == (3, 1, 1)


def due():
    return set(estimates._to_estimate().values_list("repository__name", flat=True))


def test_estimate_is_made_when_base_is_scanned_after_planning(yard, monkeypatch):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    yard.push("shop/alone", "alone")  # only its recipe names the base, so no estimate is possible
    alone = dock.repository("shop/alone")
    Recipe.objects.create(
        repository=alone, revision=1, containerfile="", base_references=["base/debian"], author=yard.owner
    )
    package = yard.tag("base/debian").image_inventories.get().inventory.inventory_packages.get().package
    dock.advisory("CVE-1", "high", package, fixed="2")
    new = yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    scanned_at = new.scanned_at or Image.objects.get(pk=new.pk).scanned_at
    Image.objects.filter(pk=new.pk).update(scanned_at=None)
    wave = planning.plan_wave("base/debian:latest", actor=yard.owner)
    estimates.estimate_open()
    assert set(wave.jobs.values_list("repository__name", "would_fix")) == {("shop/static", None), ("shop/alone", None)}
    assert due() == set()
    Image.objects.filter(pk=new.pk).update(scanned_at=scanned_at)
    assert due() == {"shop/static"}
    estimates.estimate_open()
    assert wave.jobs.get(repository__name="shop/static").would_fix == ["CVE-1"]
    assert due() == set()
    monkeypatch.setattr(estimates, "estimate", lambda wave: pytest.fail("There is nothing left to estimate."))
    estimates.estimate_open()


def test_base_of_an_estimate_may_be_an_index(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    new = yard.push("base/debian", "debian 2", tag="next", packages=("openssl", "2"))
    arm = dock.image("debian 2 for arm", architecture="arm64")
    place = dock.repository("base/debian")
    dock.push(place, dock.index("debian 2 for both", new, arm), "latest")
    wave = planning.plan_wave("base/debian:latest", actor=yard.owner)
    assert (wave.jobs.get().would_fix, due()) == (None, set())
    Image.objects.filter(pk=arm.pk).update(scanned_at=clock.now())
    assert due() == {"shop/static"}
    estimates.estimate_open()
    assert wave.jobs.get().would_fix == []


def test_estimate_is_unknown_while_the_old_base_is_not_scanned(yard):
    old = yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    package = old.image_inventories.get().inventory.inventory_packages.get().package
    dock.advisory("CVE-1", "high", package, fixed="2")
    yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    scanned_at = Image.objects.get(pk=old.pk).scanned_at
    held = old.image_inventories.get()
    inventory = held.inventory
    Image.objects.filter(pk=old.pk).update(scanned_at=None)
    held.delete()
    wave = planning.plan_wave("base/debian:latest", actor=yard.owner)
    assert (wave.jobs.get().would_fix, due()) == (None, set())
    Image.objects.filter(pk=old.pk).update(scanned_at=scanned_at)
    old.image_inventories.create(inventory=inventory)
    assert due() == {"shop/static"}
    estimates.estimate_open()
    assert wave.jobs.get().would_fix == ["CVE-1"]


def test_findings_added_by_a_rebuild_are_reported(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    new = yard.push("base/debian", "debian 2", packages=("zlib", "2"))
    worse = new.image_inventories.get().inventory.inventory_packages.get().package
    yard.wave()
    dock.advisory("CVE-9", "critical", worse)
    yard.settle()
    job = RebuildJob.objects.get()
    assert (job.state, job.fixed, job.introduced, job.findings_after) == ("done", [], ["CVE-9"], 1)


def test_result_is_judged_only_after_its_packages_are_matched(yard):
    yard.push("base/debian", "debian 1")
    yard.push("shop/static", "static", on="base/debian")
    yard.push("base/debian", "debian 2", packages=("openssl", "2"))
    yard.wave()
    held = yard.tag("base/debian").image_inventories.get().inventory.inventory_packages.get().package_id
    match = Job.objects.create(kind="match", subject_id=1, actor=yard.owner, payload={"package_ids": [held]})
    Job.objects.filter(pk=match.pk).update(state="running", lease_until="2999-01-01T00:00Z")
    for _ in range(3):
        for job in Job.objects.filter(state="waiting"):
            Job.objects.filter(pk=job.pk).update(not_before=None)
            yard.run(job)
    assert RebuildJob.objects.get().state == "scanning"
    Job.objects.filter(pk=match.pk).update(state="succeeded", lease_until=None, finished_at=clock.now())
    yard.settle()
    assert RebuildJob.objects.get().state == "done"
