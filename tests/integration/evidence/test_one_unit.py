"""One fact, one number: what a rebuild fixed, on every page and in the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from accounts.queries import system_user
from lifecycle.authority.services import create_environment
from lifecycle.comparison.queries import compare
from lifecycle.environments.models import Slot
from lifecycle.evidence.findings import diff_of_images
from lifecycle.pages.rebuild.page_queries import counts_of
from lifecycle.promotion import services as promotions
from lifecycle.promotion.queries import evidence_of
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.rebuild.services import results
from lifecycle.registry.models import Image, Repository
from tests.factories import dock

pytestmark = pytest.mark.django_db
FIXED = 3  # advisories; together in 3 x 2 + 1 packages


@pytest.fixture
def rebuilt(client: Any) -> dict[str, Any]:
    """shop/api before and after a rebuild: three advisories fixed in several packages, one in one package only."""
    team = dock.team("shop")
    owner = dock.user("owner", "owner", of=team)
    dock.user("approver", "approver", of=team)
    client.force_login(owner)
    old = [dock.package(name, "1", source="ssl") for name in ("libssl3", "openssl", "libssl-dev")]
    new = [dock.package(name, "2", source="ssl") for name in ("libssl3", "openssl", "libssl-dev")]
    still = dock.package("tar", "1")
    before, after, base, new_base = (dock.image(name) for name in ("before", "after", "base", "new base"))
    dock.carry(before, 0, *old, still)
    dock.carry(after, 0, *new, still)
    dock.carry(base, 0, *old, still)
    dock.carry(new_base, 0, *new, still)
    for number in range(FIXED):
        dock.advisory(f"CVE-2024-{number}", "high", *old[: 2 if number else 3], fixed="2")
    dock.advisory("CVE-2024-8", "low", still)
    # Fixed in one package, still open in another: the advisory is not fixed.
    dock.advisory("CVE-2024-9", "low", old[0], still)
    shop, ground = dock.repository("shop/api", team), dock.repository("shop/base", team)
    for where, image, tag in ((shop, before, "1"), (shop, after, "2"), (ground, base, "b1"), (ground, new_base, "b2")):
        dock.push(where, image, tag, owner)
    wave = RebuildWave.objects.create(repository=ground, old_base=base, new_base=new_base, planned_by=owner)
    wave.confirmed_by, wave.state = owner, RebuildWave.State.RUNNING
    wave.save()
    expected = sorted(f"CVE-2024-{number}" for number in range(FIXED))
    job = RebuildJob.objects.create(
        wave=wave, repository=shop, level=1, old_image=before, new_image=after, tag="1", would_fix=expected,
        method=RebuildJob.Method.REBASE, state=RebuildJob.State.SCANNING, started_at=before.first_seen_at,
    )  # fmt: skip
    results.finish(job.pk)
    environment = create_environment(
        team, actor=system_user(), slug="live", name="Live", prefix="live", required_approvals=1
    )
    Slot.objects.create(repository=shop, environment=environment, image=before, tag="1", since=before.first_seen_at)
    request = promotions.request_promotion(shop, after.digest, environment, actor=owner, reason="rebuilt")
    return {"before": before, "after": after, "wave": wave, "job": job, "request": request, "client": client}


def test_every_page_and_api_counts_what_is_fixed_in_advisories(rebuilt: dict[str, Any]) -> None:
    before, after, wave, job = (rebuilt[name] for name in ("before", "after", "wave", "job"))
    job.refresh_from_db()
    client = rebuilt["client"]
    compared = client.get(f"/api/v1/images/{before.digest}/compare/?to={after.digest}").json()["summary"]
    counts = counts_of([wave.pk], Repository.objects.all())[wave.pk]
    numbers = {
        "comparison": len(compare(before, after).advisories.fixed),
        "comparison in the API": compared["advisories"]["fixed"],
        "diff": len(diff_of_images(before, after).advisories.fixed),
        "evidence of a promotion": evidence_of(rebuilt["request"])["findings"]["fixed"],
        "job of the wave": len(job.fixed),
        "estimate": len(job.would_fix or ()),
        "list of waves": counts.fixed,
        "expected in the list": counts.would_fix,
    }
    assert numbers == dict.fromkeys(numbers, FIXED)
    assert compared["findings"]["fixed"] > FIXED  # by package it is another number, and has another name
    assert job.remaining_count == 2
    name = ["shop", "shop/api"]
    pages = {
        "image banner": reverse("lifecycle:image", args=[*name, after.digest]),
        "wave": reverse("lifecycle:wave", args=[wave.pk]),
        "comparison": reverse("lifecycle:comparison", args=[before.digest, after.digest]),
        "promotion": reverse("lifecycle:promotion", args=[rebuilt["request"].pk]),
        "promotions": reverse("lifecycle:promotions"),
    }
    for what, page in pages.items():
        text = " ".join(client.get(page).content.decode().split())
        assert f"{FIXED} fixed" in text or f">{FIXED}<" in text, what
        assert "7 fixed" not in text, what


def test_wave_counts_an_advisory_of_several_images_once(rebuilt: dict[str, Any]) -> None:
    job = rebuilt["job"]
    twin = dock.repository("shop/worker", dock.team("shop"))
    RebuildJob.objects.create(
        wave=job.wave, repository=twin, level=1, old_image=rebuilt["before"], tag="1", would_fix=["CVE-2024-0"]
    )
    counts = counts_of([job.wave_id], Repository.objects.all())[job.wave_id]
    assert (counts.total, counts.would_fix) == (2, FIXED)
    only = counts_of([job.wave_id], Repository.objects.filter(pk=twin.pk))[job.wave_id]
    assert (only.total, only.would_fix, only.fixed) == (1, 1, 0)
    assert counts_of([], Repository.objects.all()) == {}
    assert Image.objects.count() == 4
