"""Fixes and alerts in a real browser: axe and the CSP in both themes and widths, and from the list to a plan."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db import transaction
from playwright.sync_api import Browser, expect

from lifecycle.advisories.models import PrivateAdvisory
from lifecycle.alerts import passes
from lifecycle.alerts.models import ChangedPackages
from lifecycle.core import clock
from lifecycle.remedies import services
from lifecycle.remedies.models import Remedy
from lifecycle.trends.models import TrendFact
from tests.e2e.chromium import LOOKS, NEEDS_CHROMIUM, signed_in
from tests.factories import dock

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]
SHOTS = os.environ.get("SHOTS", "")  # a folder: pictures of every page for people to look at


@pytest.fixture
def harbour(transactional_db: None) -> dict[str, Any]:
    """The quay, with fixed packages in the new base, its remedies, and alerts about a new advisory."""
    made = dock.quay()
    dock.carry(made["new"], 0, dock.package("libssl3", "3.0.14-1~deb12u1", source="openssl"))
    dock.count_risk(made["new"])
    with transaction.atomic():
        services.find(services.to_find(clock.now())[0])
        passes.remember_all(clock.now(), lambda function: function())
        perl, urllib3 = dock.package("perl-base", "5.36.0-7"), dock.package("urllib3", "2.5.0", kind="pypi")
        dock.advisory("CVE-2026-31022", "critical", perl, fixed="5.36.0-7+deb12u3")
        dock.advisory("CVE-2026-4410", "medium", urllib3)
        ChangedPackages.objects.create(package_ids=[perl.pk, urllib3.pk], is_first=False)
        alerts = passes.look_now(clock.now())
    made["alerts"] = [f"/alerts/{alert.pk}/" for alert in alerts[:1]]
    TrendFact.objects.bulk_create(
        TrendFact(
            team=dock.team("shop"), day=clock.now().date() - timedelta(days=19 - number), critical=3 - number // 8,
            high=9 - number // 4, medium=12 + number % 3, low=20, overdue=2 + number // 5, fixed={"4": 1},
        )
        for number in range(20)
    )  # fmt: skip
    own = PrivateAdvisory.objects.create(
        osv_id="ACME-2026-1", state="requested", author=dock.user("shop-dev"), reason="Found in our own review.",
        document={"id": "ACME-2026-1", "summary": "The client trusts any certificate", "affected": []},
    )  # fmt: skip
    made["private"] = ["/private-advisories/", "/private-advisories/new/", f"/private-advisories/{own.pk}/"]
    made["keys"] = [Remedy.objects.filter(kind=kind).first().key for kind in ("rebuild", "upgrade")]
    return made


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_pages_pass_axe_and_the_csp(
    browser: Browser, harbour: dict[str, Any], live_server: Any, theme: str, width: int
) -> None:
    page = signed_in(browser, live_server.url, theme=theme, width=width)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    fixes = [f"/fixes/{key}/" for key in harbour["keys"]]
    for number, address in enumerate(
        ["/fixes/", *fixes, "/alerts/", *harbour["alerts"], *harbour["private"], "/trends/"]
    ):
        page.goto(live_server.url + address)
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/fixes-{number:02d}-{theme}-{width}.png", full_page=True)
        result = Axe().run(page)
        assert result.violations_count == 0, (address, result.generate_report())
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, (address, f"scrolls sideways by {wider} px")
    expect(page.locator("#trend .u-legend")).to_be_attached()  # the drawing, on the last page
    assert complaints == []


def test_from_the_bar_to_the_images_of_a_remedy(browser: Browser, live_server: Any) -> None:
    page = signed_in(browser, live_server.url)
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.wait_for_url("**/fixes/")
    page.get_by_label("What to do", exact=True).select_option("rebuild")
    page.wait_for_url("**/fixes/?kind=rebuild**")
    page.get_by_role("link", name="Rebuild on base/debian").click()
    expect(page.get_by_role("heading", name="Rebuild on base/debian")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="shop/static")).to_have_count(1)
    expect(page.get_by_role("button", name="Plan rebuild")).to_be_visible()
