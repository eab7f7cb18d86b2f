"""Open, none, unknown: what nobody could judge never looks healthy, on any page, in the API, metrics and gates."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.queries import system_user
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Slot
from lifecycle.evidence.judgement import Known, judgement_of, with_known
from lifecycle.evidence.kinds import RECOUNT
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.promotion import services as promotions
from lifecycle.promotion.queries import requirements_now
from lifecycle.registry.models import Image, Layer
from lifecycle.sbom import services as sbom
from lifecycle.sbom.packages import Package
from tests.factories import dock
from tests.factories.advisories import Export, record

pytestmark = pytest.mark.django_db
ACTION_URL = "/api/v1/images/"
CLEAN = "pkg:deb/debian/openssl@3.0.99-1?distro=debian-12"
OPEN = "pkg:deb/debian/openssl@3.0.11-1?distro=debian-12"
UNREADABLE = "pkg:deb/debian/broken@1.0?distro=debian-12"
GREEN = ("None open", "no open findings", "No open findings.")


@pytest.fixture
def place(tmp_path: Any, client: Client) -> SimpleNamespace:
    """A repository with one environment that requires an approval and one that requires none, and a Debian 12 feed."""
    export = Export(tmp_path / "export")
    broken = record("DEB-BROKEN", name="broken", events=[{"introduced": "0"}, {"fixed": "not a version !"}])
    export.put("Debian", record("DEB-1"), broken)
    export.sync()
    run_recounts()
    team = dock.team("shop")
    asker, approver = dock.user("asker", "owner", of=team), dock.user("approver", "approver", of=team)
    system = system_user()
    strict, loose, held = (
        create_environment(team, actor=system, slug=slug, name=slug, prefix=slug, required_approvals=required)
        for slug, required in (("strict", 1), ("loose", 0), ("held", 1))
    )
    client.force_login(asker)
    return SimpleNamespace(
        export=export, team=team, asker=asker, approver=approver, strict=strict, loose=loose, held=held, client=client,
        repository=dock.repository("shop/api", team),
    )  # fmt: skip


def run_recounts() -> None:
    for job in Job.objects.filter(kind=RECOUNT.name, state=Job.State.WAITING):
        running.run(job.pk)


def run_matching() -> None:
    for job in Job.objects.filter(kind="match", state=Job.State.WAITING):
        running.run(job.pk)


def scanned(place: SimpleNamespace, *purls: str, dropped: int = 0, problem: str = "", matched: bool = True) -> Image:
    """Return an image with these packages, stored as a scan stores them, and tagged."""
    image = dock.image("made")
    Image.objects.filter(pk=image.pk).update(digest=dock.sha("made"))
    content = sbom.Content([Package(purl) for purl in purls], "debian-12", dropped_count=dropped, problem=problem)
    sbom.store({image.pk: content}, actor=system_user())
    if matched:
        run_matching()
    dock.push(place.repository, image, "1.0", place.asker)
    Slot.objects.create(
        repository=place.repository, environment=place.held, image=image, tag="1.0", since=image.first_seen_at
    )
    image.refresh_from_db()
    return image


def unscanned(place: SimpleNamespace) -> Image:
    image = dock.image("made")
    dock.push(place.repository, image, "1.0", place.asker)
    return image


# name -> (how the image is made, its state, number of unjudged packages, a part of why)
CASES: dict[str, tuple[Callable[[SimpleNamespace], Image], Known, int, str]] = {
    "not scanned": (unscanned, Known.UNKNOWN, 0, "not scanned yet"),
    "no packages": (scanned, Known.UNKNOWN, 0, "no packages recognised"),
    "without package URL": (lambda p: scanned(p, CLEAN, dropped=2), Known.UNKNOWN, 2, "2 of 3 packages could not"),
    "unusable package URL": (lambda p: scanned(p, CLEAN, "apt"), Known.UNKNOWN, 1, "no usable package URL"),
    "no distribution release": (
        lambda p: scanned(p, "pkg:deb/debian/libc6@2.36-9", "pkg:deb/debian/openssl@3.0.11-1"),
        Known.UNKNOWN, 2, "2 of 2 packages could not be judged: the distribution's release is unknown (2)",
    ),
    "type without feeds": (lambda p: scanned(p, CLEAN, "pkg:generic/a@1"), Known.UNKNOWN, 1, "purl type generic"),
    "invalid version": (lambda p: scanned(p, CLEAN, "pkg:pypi/a@~~"), Known.UNKNOWN, 1, "invalid pep440 version (1)"),
    "no feed for the ecosystem": (lambda p: scanned(p, CLEAN, "pkg:npm/a@1.0.0"), Known.UNKNOWN, 1, "for npm"),
    "no feed for the release": (
        lambda p: scanned(p, CLEAN, CLEAN.replace("-12", "-14")), Known.UNKNOWN, 1, "no advisories stored for Debian 14"
    ),
    "not matched yet": (lambda p: scanned(p, CLEAN, matched=False), Known.UNKNOWN, 1, "not yet checked"),
    "unreadable range": (lambda p: scanned(p, CLEAN, UNREADABLE), Known.UNKNOWN, 1, "range cannot be read"),
    "problem of the source": (lambda p: scanned(p, CLEAN, problem="The list was cut."), Known.UNKNOWN, 0, "was cut"),
    "open and unjudged": (lambda p: scanned(p, OPEN, "pkg:generic/a@1"), Known.OPEN, 1, "1 of 2 packages"),
    "open": (lambda p: scanned(p, OPEN), Known.OPEN, 0, ""),
    "none": (lambda p: scanned(p, CLEAN), Known.NONE, 0, ""),
}  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request: pytest.FixtureRequest, place: SimpleNamespace) -> SimpleNamespace:
    make, state, unjudged, why = CASES[request.param]
    return SimpleNamespace(name=request.param, image=make(place), state=state, unjudged=unjudged, why=why, place=place)


def pages(case: SimpleNamespace) -> list[str]:
    name, digest = ["shop", "shop/api"], case.image.digest
    image = reverse("lifecycle:image", args=[*name, digest])
    return [
        reverse("lifecycle:images"),
        reverse("lifecycle:repository", args=name),
        image,
        f"{image}?tab=findings",
        f"{image}?tab=packages",
        f"{reverse('lifecycle:environments')}?team=shop",
        reverse("lifecycle:lineage-image", args=[digest]),
    ]


def test_every_count_of_an_image_is_open_none_or_unknown(case: SimpleNamespace) -> None:
    known = judgement_of(case.image)
    assert (known.state, known.unjudged_count) == (case.state, case.unjudged)
    assert case.why in known.why
    assert bool(known.why) == bool(case.why)
    assert list(with_known(Image.objects.all()).values_list("known", flat=True)) == [case.state.value]


def test_only_a_judged_image_looks_healthy_on_a_page(case: SimpleNamespace) -> None:
    for page in pages(case):
        text = case.place.client.get(page).content.decode()
        assert "made" in page or "shop/api" in text, page
        is_green = any(words in text for words in GREEN)
        assert not is_green or case.state == Known.NONE, page
    if case.state == Known.NONE:  # the twin: it says so where it is known
        assert "None open" in case.place.client.get(pages(case)[2]).content.decode()
    elif case.state == Known.UNKNOWN:
        for page in pages(case)[:3]:
            assert "nknown" in case.place.client.get(page).content.decode() or case.name == "not scanned", page


def test_api_and_metrics_name_what_is_unknown(case: SimpleNamespace) -> None:
    findings = case.place.client.get(f"{ACTION_URL}{case.image.digest}/").json()["findings"]
    assert findings["state"] == case.state.value
    assert case.why in findings["why"]
    assert (findings["critical"] is None) == (case.name == "not scanned")
    if case.name != "not scanned":
        assert findings["unjudged"] == case.unjudged == sum(findings["unjudged_reasons"].values())
    listed = case.place.client.get(ACTION_URL).json()["results"]
    assert [row["findings"]["state"] for row in listed] == [case.state.value]
    metrics = case.place.client.get("/metrics").content.decode()
    assert f'gravingdock_images_by_findings{{state="{case.state.value}"}} 1' in metrics
    assert f"gravingdock_packages_unjudged {case.unjudged}" in metrics


def gate(request: Any) -> dict[str, Any]:
    return next(item for item in requirements_now(request) if item["name"] == "packages_known")


def test_gate_is_satisfied_only_when_every_package_was_judged(case: SimpleNamespace) -> None:
    place = case.place
    strict, loose = (
        promotions.request_promotion(
            place.repository, case.image.digest, environment, actor=place.asker, reason="release"
        )
        for environment in (place.strict, place.loose)
    )
    if case.name in {"not scanned", "not matched yet"}:
        assert (gate(strict)["status"], gate(loose)["status"]) == ("pending", "pending")
        return
    if not case.why:
        assert (gate(strict)["status"], gate(loose)["status"]) == ("satisfied", "satisfied")
        return
    waiting = gate(strict)
    assert waiting["status"] == "pending"
    assert "approver" in waiting["who"]
    assert waiting["counts"]["unjudged"] == case.unjudged
    assert case.why.lower() in waiting["summary"].lower()
    promotions.approve(strict.pk, actor=place.approver)
    strict.refresh_from_db()
    assert gate(strict)["status"] == "waived"
    assert "approver" in gate(strict)["summary"]
    # Where nobody approves, the environment's owner accepted it beforehand. The gate says that it did not judge.
    assert gate(loose)["status"] == "waived"
    assert "requires no approvals" in gate(loose)["summary"]


def test_approval_lapses_when_more_cannot_be_judged(place: SimpleNamespace) -> None:
    image = scanned(place, CLEAN, OPEN)
    request = promotions.request_promotion(
        place.repository, image.digest, place.loose, actor=place.asker, reason="release"
    )
    strict = promotions.request_promotion(
        place.repository, image.digest, place.strict, actor=place.asker, reason="release"
    )
    promotions.approve(strict.pk, actor=place.approver)
    assert strict.votes.get().lapsed_at is None
    place.export.put("Debian", record("DEB-2", events=[{"introduced": "0"}, {"fixed": "not a version !"}]))
    place.export.sync()
    promotions.reevaluate(strict)
    promotions.reevaluate(request)
    vote = strict.votes.get()
    image.refresh_from_db()
    assert vote.lapsed_at is not None
    assert "could not be judged" in vote.lapse_reason


def test_counts_follow_the_feeds_that_arrive_and_leave(place: SimpleNamespace) -> None:
    image = scanned(place, CLEAN, "pkg:npm/a@1.0.0")
    assert judgement_of(image).reasons == {"no advisories stored for npm": 1}
    place.export.put("npm", record("GHSA-1", name="b", ecosystem="npm", fixed="2.0.0"))
    place.export.sync()  # no match changes: only the coverage does
    run_recounts()
    image.refresh_from_db()
    assert judgement_of(image).state == Known.NONE
    place.export.drop("npm", "GHSA-1")
    place.export.sync()
    run_recounts()
    image.refresh_from_db()
    assert judgement_of(image).state == Known.UNKNOWN


def test_finding_is_not_fixed_when_its_package_can_no_longer_be_judged(place: SimpleNamespace) -> None:
    before = scanned(place, OPEN)
    after = dock.image("after")
    Layer.objects.filter(image=after).delete()
    dock.push(place.repository, after, "2.0", place.asker)
    content = sbom.Content([Package(OPEN.replace("debian-12", "debian-14"))])
    sbom.store({after.pk: content}, actor=system_user())
    run_matching()
    summary = place.client.get(f"{ACTION_URL}{before.digest}/compare/?to={after.digest}").json()["summary"]
    assert summary["findings"] == {"fixed": 0, "new": 0, "same": 0, "unknown": 1}
    assert summary["unjudged"]["after"] == 1
    fixed = dock.image("fixed")
    dock.push(place.repository, fixed, "3.0", place.asker)
    sbom.store({fixed.pk: sbom.Content([Package(CLEAN)])}, actor=system_user())
    run_matching()
    summary = place.client.get(f"{ACTION_URL}{before.digest}/compare/?to={fixed.digest}").json()["summary"]
    assert summary["findings"] == {"fixed": 1, "new": 0, "same": 0, "unknown": 0}


def test_index_shows_the_worst_platform_and_what_is_unknown_of_the_others(place: SimpleNamespace) -> None:
    first, second = dock.image("one"), dock.image("two", architecture="arm64")
    index = dock.index("multi", first, second)
    dock.push(place.repository, index, "1.0", place.asker)

    def shown() -> tuple[str, dict[str, Any], dict[str, Any]]:
        page = place.client.get("/images/").content.decode()
        tags = place.client.get("/t/shop/r/shop/api/").content.decode()
        listed = place.client.get(ACTION_URL, {"repository": "shop/api", "tag": "1.0"}).json()["results"][0]
        single = place.client.get(f"{ACTION_URL}{index.digest}/").json()
        return page + tags, listed["findings"], single["findings"]

    counts: dict[str, Any] = {"scanned_at": clock.now(), "package_count": 3}
    Image.objects.filter(pk=first.pk).update(**counts, high_count=2)
    page, listed, single = shown()
    assert listed == single
    assert (listed["state"], listed["high"]) == ("open", 2)
    assert listed["why"] == f"{second.platform}: not scanned yet"
    assert page.count("2 high") >= 2
    assert "arm64: not scanned yet." in page
    Image.objects.filter(pk=second.pk).update(**counts, critical_count=1)
    assert [(found["critical"], found["high"], found["why"]) for found in shown()[1:]] == [(1, 0, "")] * 2
    Image.objects.filter(pk__in=[first.pk, second.pk]).update(critical_count=0, high_count=0)
    page, listed, _ = shown()
    assert (listed["state"], page.count("no open findings on 2 platforms")) == ("none", 2)
    index.entries.all().delete()
    page, listed, _ = shown()
    assert (listed["state"], listed["why"]) == ("unknown", "no platform that can be read")
    assert not any(word in page for word in GREEN)
