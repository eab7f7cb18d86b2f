"""The read pages in a real browser: axe finds nothing in either theme, the CSP is never broken, keys and forms work."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Browser, expect

from tests.e2e.chromium import LOOKS, NEEDS_CHROMIUM, signed_in
from tests.factories import dock

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]


def addresses() -> list[str]:
    image = reverse("lifecycle:image", args=["shop", "shop/api", dock.sha("shop/api")])
    tabs = ("overview", "lineage", "packages", "findings", "promotions", "history")
    return [
        reverse("lifecycle:images"),
        reverse("lifecycle:repository", args=["shop", "shop/jobs"]),
        reverse("lifecycle:repository", args=["shop", "shop/checkout"]),
        *(f"{image}?tab={tab}" for tab in tabs),
        reverse("lifecycle:lineage"),
        reverse("lifecycle:search") + "?q=shop",
        reverse("lifecycle:advisory", args=["CVE-2024-5535"]),
        reverse("lifecycle:package", args=["deb", "libssl3"]),
        reverse("lifecycle:lineage-image", args=[dock.sha("shop/api")]),
    ]


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_pages_pass_axe_and_the_csp(browser: Browser, live_server: Any, theme: str, width: int) -> None:
    page = signed_in(browser, live_server.url, theme=theme, width=width)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    for address in addresses():
        page.goto(live_server.url + address)
        result = Axe().run(page)
        assert result.violations_count == 0, (address, result.generate_report())
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, (address, f"scrolls sideways by {wider} px")
    assert complaints == []


def test_sign_in_passes_axe_and_shows_an_error(browser: Browser, live_server: Any) -> None:
    page = browser.new_page()
    page.goto(live_server.url + "/accounts/sign-in/")
    assert Axe().run(page).violations_count == 0
    page.fill("#id_login", "shop-dev")
    page.fill("#id_password", "not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()


def test_shortcuts_work_and_can_be_turned_off(browser: Browser, live_server: Any) -> None:
    page = signed_in(browser, live_server.url)
    page.goto(live_server.url + reverse("lifecycle:images"))
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.wait_for_url("**/lineage/")
    page.keyboard.press("j")
    expect(page.locator("[data-row-link]:focus")).to_have_count(1)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("Use single-key shortcuts in this browser").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.wait_for_timeout(200)
    assert page.url.endswith("/lineage/")


def test_filter_and_theme_work_without_script(browser: Browser, live_server: Any) -> None:
    page = signed_in(browser, live_server.url, script=False)
    page.goto(live_server.url + reverse("lifecycle:images"))
    page.locator(".filters input[name=q]").fill("worker")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("[data-row-link]")).to_have_text(["shop/worker"])
    page.locator(".menu-button").click()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")


def test_palette_finds_and_opens_by_keyboard(browser: Browser, live_server: Any) -> None:
    page = signed_in(browser, live_server.url)
    page.goto(live_server.url + reverse("lifecycle:lineage"))
    page.keyboard.press("Control+k")
    page.keyboard.type("shop/work")
    page.get_by_role("dialog").get_by_role("link", name="shop/worker").wait_for()
    assert Axe().run(page).violations_count == 0
    page.keyboard.press("Enter")
    page.wait_for_url("**/t/shop/r/shop/worker/")
    page.keyboard.press("Control+k")
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()


def test_search_works_on_a_phone_without_script(browser: Browser, live_server: Any) -> None:
    page = signed_in(browser, live_server.url, width=375, script=False)
    page.get_by_role("link", name="Search").click()
    page.get_by_label("Search for").fill("CVE-2024-5535")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="CVE-2024-5535").click()
    expect(page.locator("table")).to_contain_text("shop/api:1.0")
