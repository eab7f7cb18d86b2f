"""Adding the difference of a few package versions to many images gives the counts of a count from the beginning."""

from __future__ import annotations

import random
import threading

import pytest
from django.db import connection, transaction

from lifecycle.core import locks
from lifecycle.evidence import package_counts
from lifecycle.evidence.models import PackageCounts
from lifecycle.evidence.risk import COUNTING_LOCK, refresh_risk
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image
from lifecycle.vex import services as vex
from tests.factories import dock
from tests.factories.advisories import record
from tests.factories.people import person

SEVERITIES = ["CRITICAL", "HIGH", "MODERATE", "LOW", ""]
FIELDS = (
    "critical_count", "high_count", "medium_count", "low_count", "unknown_count", "fixable_count", "unjudged_count",
    "unjudged_reasons",
)  # fmt: skip


@pytest.fixture
def added(monkeypatch):
    """Count no image whole because there are few images, and return the calls that added a difference."""
    monkeypatch.setattr(package_counts, "_WHOLE_UP_TO", 0)
    calls: list[int] = []
    add = package_counts._add
    monkeypatch.setattr(package_counts, "_add", lambda *args: (calls.append(len(args[0])), add(*args)))
    return calls


def counts() -> list[dict[str, object]]:
    return list(Image.objects.order_by("pk").values(*FIELDS))


def from_the_beginning() -> list[dict[str, object]]:
    with transaction.atomic():
        refresh_risk(list(Image.objects.values_list("pk", flat=True)))
        found = counts()
        transaction.set_rollback(True)
    return found


def run_counts() -> None:
    """Run the counts that wait: a feed that covers an ecosystem for the first time changes all images."""
    for job in Job.objects.filter(kind="recount", state="waiting").order_by("pk"):
        Job.objects.filter(pk=job.pk).update(not_before=None)
        running.run(job.pk)


def fleet_of(stored, size: int = 6) -> list[Image]:
    """Return images that share package versions, some in two layers, one without a feed and one unusable."""
    packages = [stored(f"pkg:pypi/p{number}@1.{number}") for number in range(5)]
    odd = [stored("pkg:cargo/p0@1.0"), stored("pkg:pypi/p1@not-a-version")]
    images = []
    for number in range(size):
        image = dock.image(f"image {number}")
        dock.carry(image, 0, *packages[: 1 + number % 5])
        dock.carry(image, 1, *packages[number % 3 :], odd[number % 2])
        images.append(image)
    return images


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(4))
def test_added_differences_equal_a_count_from_the_beginning(export, stored, added, seed, settings):
    settings.VEX_SECOND_PERSON = False
    fleet = fleet_of(stored)
    repository = dock.repository("shop/api", dock.team("shop"))
    for image in fleet:
        dock.push(repository, image, f"v{image.pk}", dock.user("pusher", "owner", of=repository.team))
    guard = person("guard", repository.team, "security")
    chance = random.Random(seed)
    known: set[str] = set()
    for step in range(14):
        osv_id = f"CVE-2026-{chance.randrange(1000, 1004)}"
        if osv_id in known and chance.random() < 0.25:
            export.drop("PyPI", osv_id)
            known.discard(osv_id)
        else:
            severity = chance.choice(SEVERITIES)
            more = {"database_specific": {"severity": severity}} if severity else {}
            fixed = chance.choice(["1.2", "2.0", "9", "no version"])
            name = f"p{chance.randrange(5)}"
            made = record(osv_id, name=name, ecosystem="PyPI", fixed=fixed, **more)
            export.put("PyPI", made | {"modified": f"2026-01-01T00:00:{step:02}Z"})
            known.add(osv_id)
        if step == 8 and known:
            vex.decide(
                min(known), "not_affected", actor=guard, scope="digest", repository=repository, digest=fleet[0].digest,
                justification="vulnerable_code_not_present", reason="Not built in.",
            )  # fmt: skip
        export.sync()
        run_counts()
        assert counts() == from_the_beginning(), step
    assert added  # or nothing was tested
    assert PackageCounts.objects.exists()


@pytest.mark.django_db
def test_named_package_is_counted_whole_and_others_are_not(export, stored, added, settings):
    settings.VEX_SECOND_PERSON = False
    fleet = fleet_of(stored)
    repository = dock.repository("shop/api", dock.team("shop"))
    dock.push(repository, fleet[0], "v0", dock.user("pusher", "owner", of=repository.team))
    high = {"database_specific": {"severity": "HIGH"}}
    export.put("PyPI", record("CVE-1", name="p0", ecosystem="PyPI", fixed="2", **high))
    export.sync()
    export.put("PyPI", record("CVE-2", name="p0", ecosystem="PyPI", fixed="2", **high))
    export.sync()
    run_counts()
    export.put("PyPI", record("CVE-4", name="p0", ecosystem="PyPI", fixed="2", **high))
    added.clear()
    export.sync()
    assert added == [1]
    vex.decide(
        "CVE-1", "not_affected", actor=person("guard", repository.team, "security"), scope="digest",
        repository=repository, digest=fleet[0].digest, justification="vulnerable_code_not_present", reason="No.",
    )  # fmt: skip
    export.put("PyPI", record("CVE-3", name="p0", ecosystem="PyPI", fixed="2", **high))
    added.clear()
    export.sync()
    assert added == []
    assert counts() == from_the_beginning()
    assert counts()[0]["high_count"] == 3


@pytest.mark.django_db(transaction=True)
def test_image_counted_while_matches_change_is_counted_again(export, stored, added):
    fleet = fleet_of(stored)
    high = {"database_specific": {"severity": "HIGH"}}
    export.put("PyPI", record("CVE-1", name="p0", ecosystem="PyPI", fixed="2", **high))
    export.sync()
    is_changing, is_counted = threading.Event(), threading.Event()

    def change() -> None:
        with transaction.atomic():
            locks.wait_for(COUNTING_LOCK)
            is_changing.set()
            assert is_counted.wait(20)
        connection.close()

    changing = threading.Thread(target=change)
    changing.start()
    assert is_changing.wait(20)
    refresh_risk([fleet[0].pk])
    is_counted.set()
    changing.join(20)
    job = Job.objects.get(kind="recount", payload__image_ids=[fleet[0].pk])
    Image.objects.filter(pk=fleet[0].pk).update(high_count=77)
    run_counts()
    job.refresh_from_db()
    assert job.state == Job.State.SUCCEEDED
    assert counts() == from_the_beginning()


@pytest.mark.django_db(transaction=True)
def test_count_without_a_change_of_matches_queues_nothing(stored):
    refresh_risk([fleet_of(stored, 1)[0].pk])
    assert not Job.objects.filter(kind="recount").exists()


@pytest.mark.django_db
def test_first_match_of_a_package_is_added_and_an_uncounted_one_is_not(export, stored, added):
    fleet_of(stored)
    refresh_risk(list(Image.objects.values_list("pk", flat=True)))
    high = {"database_specific": {"severity": "HIGH"}}
    export.put("PyPI", record("CVE-1", name="p0", ecosystem="PyPI", fixed="2", **high))
    export.sync()
    assert added == [1]
    run_counts()
    assert counts() == from_the_beginning()
    PackageCounts.objects.all().delete()
    export.put("PyPI", record("CVE-2", name="p0", ecosystem="PyPI", fixed="2", **high))
    added.clear()
    export.sync()
    assert added == []
    assert counts() == from_the_beginning()
    assert counts()[0]["high_count"] == 2
