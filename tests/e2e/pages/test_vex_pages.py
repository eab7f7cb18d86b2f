"""Decisions about findings in a real browser: axe and the CSP in both themes and widths, and one that is made."""

from __future__ import annotations

import os
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from lifecycle.evidence.risk import refresh_risk
from tests.e2e.chromium import LOOKS, NEEDS_CHROMIUM, signed_in
from tests.factories import dock
from tests.factories.people import person
from tests.factories.vexing import bring_document, decision, openvex, said

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]
SHOTS = os.environ.get("SHOTS", "")  # a folder: pictures of every page for people to look at


@pytest.fixture
def harbour(transactional_db: None) -> dict[str, Any]:
    """The harbour with one approved decision, one that waits for the reader, and a document."""
    made = dock.harbour()
    refresh_risk([made["api"].pk])
    shop = dock.team("shop")
    guard, approver = person("guard", shop, "security"), person("approver", shop, "approver")
    where = dock.repository("shop/api")
    said_no = {"vulnerability": "CVE-2024-5535", "scope": "digest", "digest": made["api"].digest}
    decision(where, by=guard, approver=approver, reason="The service does not use TLS.", **said_no)
    waiting = decision(where, by=guard, vulnerability="CVE-2023-5678", status="false_positive", justification="")
    wrong = said("CVE-2024-45490", "pkg:deb/debian/libexpat1", status="no")
    sent = bring_document(shop, by=guard, content=openvex(said("CVE-2011-4116", "pkg:deb/debian/perl-base"), wrong))
    image = f"/t/shop/r/shop/api/i/{made['api'].digest}/?tab=findings"
    return made | {"image": image, "waiting": f"/vex/{waiting.pk}/", "document": f"/vex/documents/{sent.pk}/"}


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_pages_pass_axe_and_the_csp(
    browser: Browser, harbour: dict[str, Any], live_server: Any, theme: str, width: int
) -> None:
    page = signed_in(browser, live_server.url, theme=theme, width=width)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    pages = [
        "/vex/",
        "/vex/new/",
        harbour["waiting"],
        "/vex/documents/",
        harbour["document"],
        harbour["image"],
        "/inbox/",
    ]
    for number, address in enumerate(pages):
        page.goto(live_server.url + address)
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/vex-{number:02d}-{theme}-{width}.png", full_page=True)
        result = Axe().run(page)
        assert result.violations_count == 0, (address, result.generate_report())
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, (address, f"scrolls sideways by {wider} px")
    assert complaints == []
    if (theme, width) != LOOKS[0]:
        return
    page.goto(live_server.url + harbour["image"])
    expect(page.get_by_role("region", name="Decided")).to_contain_text("The service does not use TLS.")
    page.get_by_role("link", name="Decide about CVE-2024-45490 in libexpat1").click()
    page.get_by_label("Status").select_option("under_investigation")
    page.get_by_label("Reason").fill("Asked upstream.")
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("counts now")).to_be_visible()
    page.goto(live_server.url + harbour["image"])
    expect(page.get_by_text("Under investigation by shop-dev")).to_be_visible()
