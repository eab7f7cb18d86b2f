"""The pages of promotions in a real browser: axe and the CSP, keys, narrow screens, and no script at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect, sync_playwright

from accounts.models import User
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.promotion import release_running, release_sets
from lifecycle.promotion.release_sets import Wanted
from tests.e2e.chromium import ARGUMENTS, CHROMIUM, LOOKS, NEEDS_CHROMIUM
from tests.factories import dock

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]


@pytest.fixture
def quay(transactional_db: None) -> dict[str, Any]:
    return dock.quay()


@pytest.fixture
def browser(quay: dict[str, Any], live_server: Any) -> Iterator[Browser]:
    """A browser; rows are made before it starts, since its event loop keeps Django from the database."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def signed_in(browser: Browser, base: str, who: str = "release-approver", **context: Any) -> Page:
    page = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **context}).new_page()
    page.goto(base + "/accounts/sign-in/")
    page.fill("#id_login", who)
    page.fill("#id_password", "dock-side-pass")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "sign-in" not in url)
    return page


@pytest.fixture
def releases(quay: dict[str, Any]) -> list[str]:
    """The pages of release sets: one waits for a vote, and one was put back and failed."""
    shop = quay["open"].environment.team
    place = Environment.objects.get(team=shop, slug="dev")
    Environment.objects.filter(pk=place.pk).update(required_approvals=1)
    asker, approver = User.objects.get(username="shop-dev"), User.objects.get(username="release-approver")
    made = []
    for number in range(2):
        wanted = []
        for name in ("shop/checkout", "shop/ledger"):
            image = dock.image(f"{name} {number}", scanned_at=clock.now(), package_count=1)
            dock.push(dock.repository(name), image, f"4.{number}")
            wanted.append(Wanted(dock.repository(name), tag=f"4.{number}"))
        made.append(release_sets.request_set(wanted, place, actor=asker, reason="Checkout and its ledger together."))
    release_sets.approve(made[1].pk, actor=approver)
    release_sets.execute(made[1].pk, actor=approver)
    release_running.begin_reverting(made[1].pk, why="The registry has no room.", can_retry=False)
    release_running.end_reverting(made[1].pk)
    pages = [reverse("lifecycle:release-set", args=[row.pk]) for row in made]
    return [*pages, reverse("lifecycle:release-sets"), reverse("lifecycle:release-set-new")]


def addresses(quay: dict[str, Any]) -> list[str]:
    opened, inbox = quay["open"], reverse("lifecycle:inbox")
    page = reverse("lifecycle:promotion", args=[opened.pk])
    asking = f"repository={quay['failed'].repository_id}&digest={dock.sha('shop/jobs 0')}"
    others = [
        reverse("lifecycle:promotion", args=[quay[name].pk]) for name in ("ready", "failed", "running", "unscanned")
    ]
    return [
        inbox,
        page,
        *(f"{page}?tab={tab}" for tab in ("packages", "layers", "configuration")),
        *others,
        reverse("lifecycle:promotions"),
        reverse("lifecycle:environments"),
        reverse("lifecycle:comparison", args=[quay["api"].digest, quay["new_api"].digest]),
        f"{reverse('lifecycle:promotion-new')}?{asking}",
        reverse("lifecycle:image", args=["shop", "shop/api", quay["new_api"].digest]) + "?tab=promotions",
    ]


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_pages_pass_axe_and_the_csp(  # noqa: PLR0917 -- fixtures
    releases: list[str], browser: Browser, live_server: Any, quay: dict[str, Any], theme: Any, width: int
) -> None:
    complaints: list[str] = []
    for who in ("release-approver", "shop-dev"):
        viewport = {"width": width, "height": 900}
        page = signed_in(browser, live_server.url, who, color_scheme=theme, viewport=viewport)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        for address in [*addresses(quay), *releases]:
            if "/new/" in address and who == "release-approver":
                continue  # who may not ask is refused there
            answer = page.goto(live_server.url + address)
            assert answer is not None
            assert answer.status == 200, (who, address)
            result = Axe().run(page)
            assert result.violations_count == 0, (who, address, result.generate_report())
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, (who, address, f"scrolls sideways by {wider} px")
    assert complaints == []


def test_inbox_works_with_keyboard_only(browser: Browser, live_server: Any, quay: dict[str, Any]) -> None:
    page = signed_in(browser, live_server.url)
    page.goto(live_server.url + reverse("lifecycle:inbox"))
    title = page.locator("#detail-title")
    expect(title).to_have_text("Promote shop/api 2.14.1 to production")
    page.keyboard.press("j")
    expect(title).to_have_text("Promote shop/worker 1.0 to staging")
    page.keyboard.press("k")
    expect(title).to_have_text("Promote shop/api 2.14.1 to production")
    page.keyboard.press("r")  # without a reason it only leads to the field for it, and only Reject can be sent
    expect(page.get_by_label("Comment", exact=True)).to_be_focused()
    expect(page.locator("#decision-form").get_by_role("button", name="Approve")).to_be_disabled()
    page.keyboard.press("Control+Enter")  # nothing is sent without a reason
    page.keyboard.press("Escape")
    expect(page.locator(".request.is-selected a")).to_be_focused()
    page.keyboard.press("a")
    expect(page.get_by_role("status").filter(has_text="You approved")).to_be_visible()
    expect(title).to_have_text("Promote shop/worker 1.0 to staging")
    page.keyboard.press("c")
    page.keyboard.type("Looks fine.")
    page.keyboard.press("Control+Enter")  # a comment alone is no vote
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(title).to_have_text("Promote shop/worker 1.0 to production")
    page.keyboard.press("r")
    page.keyboard.type("Wait for staging.")
    page.keyboard.press("Tab")
    expect(page.locator("#decision-form").get_by_role("button", name="Reject")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status").filter(has_text="You rejected")).to_be_visible()
    page.close()


def test_click_shows_details_and_enter_opens_the_page(browser: Browser, live_server: Any, quay: dict[str, Any]) -> None:
    page = signed_in(browser, live_server.url)
    page.goto(live_server.url + reverse("lifecycle:inbox"))
    page.get_by_role("link", name="shop/web 1.88.3").click()
    expect(page.locator("#detail-title")).to_have_text("Promote shop/web 1.88.3 to dev")
    assert page.url.endswith(f"?request={quay['unscanned'].pk}")
    page.get_by_role("link", name="shop/web 1.88.3").press("Enter")
    page.wait_for_url(f"**/promotions/{quay['unscanned'].pk}/")


def test_click_opens_request_on_narrow_screen_and_without_script(
    browser: Browser, live_server: Any, quay: dict[str, Any]
) -> None:
    narrow = {"width": 375, "height": 800}
    for context in ({"viewport": narrow}, {"java_script_enabled": False}):
        page = signed_in(browser, live_server.url, **context)
        page.goto(live_server.url + reverse("lifecycle:inbox"))
        if "viewport" in context:
            expect(page.locator("#detail")).to_be_hidden()
        page.get_by_role("link", name="shop/web 1.88.3").click()
        page.wait_for_url(f"**/promotions/{quay['unscanned'].pk}/")


def test_request_approve_and_run_work_without_script(browser: Browser, live_server: Any, quay: dict[str, Any]) -> None:
    asker = signed_in(browser, live_server.url, "shop-dev", java_script_enabled=False)
    asker.goto(live_server.url + reverse("lifecycle:repository", args=["shop", "shop/jobs"]))
    asker.get_by_role("link", name="Promote 1.0").click()
    asker.get_by_role("radio", name="dev").check()
    asker.get_by_label("Reason").fill("The oldest one again.")
    asker.get_by_role("button", name="Request promotion").click()
    asker.wait_for_url("**/promotions/*/")
    expect(asker.get_by_text("Ready: all requirements are met")).to_be_visible()
    approver = signed_in(browser, live_server.url, java_script_enabled=False)
    approver.goto(f"{live_server.url}/promotions/{quay['open'].pk}/")
    approver.get_by_label("Comment").fill("Looked at the new finding.")
    approver.get_by_role("button", name="Approve", exact=True).click()
    expect(approver.get_by_text("Ready: all requirements are met")).to_be_visible()
    approver.get_by_role("button", name="Run promotion").click()
    expect(approver.get_by_text("Running: copying the image")).to_be_visible()


def test_comparison_tabs_keep_the_comment(browser: Browser, live_server: Any, quay: dict[str, Any]) -> None:
    page = signed_in(browser, live_server.url)
    page.goto(f"{live_server.url}/promotions/{quay['open'].pk}/")
    page.get_by_label("Comment").fill("half a thought")
    page.get_by_role("link", name="Packages").click()
    expect(page.locator("#diff").get_by_role("columnheader", name="After")).to_be_visible()
    expect(page.get_by_label("Comment")).to_have_value("half a thought")


def await_detail(page: Page) -> None:
    """Wait until the request of the address is shown: the one before it is dimmed until then, for 300 ms or more."""
    page.wait_for_timeout(300)  # a key is followed by a pause before the request is loaded
    for _ in range(100):
        shown = page.locator(f'#detail a[href="/promotions/{page.url.rpartition("=")[2]}/"]').count()
        if shown and not page.locator("[aria-busy=true]").count():
            return
        page.wait_for_timeout(100)
    raise AssertionError("the chosen request was not loaded")


def test_selected_requests_are_approved_together(browser: Browser, live_server: Any, quay: dict[str, Any]) -> None:
    page = signed_in(browser, live_server.url)
    page.goto(live_server.url + reverse("lifecycle:inbox"))
    bar = page.locator("#bulk")
    expect(bar).to_be_hidden()
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(bar).to_contain_text("2 selected")
    await_detail(page)
    assert Axe().run(page).violations_count == 0
    bar.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("alert").filter(has_text="Enter a reason")).to_be_visible()
    expect(page.locator(".bulk-box:checked")).to_have_count(2)
    bar.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status").filter(has_text="You approved PR-")).to_be_visible()
    page.close()


def test_inbox_notices_a_new_request_by_itself(browser: Browser, live_server: Any, quay: dict[str, Any]) -> None:
    page = signed_in(browser, live_server.url, who="shop-dev")
    page.goto(live_server.url + reverse("lifecycle:inbox"))
    expect(page.locator("#results")).to_have_count(1)
    other = signed_in(browser, live_server.url)
    other.goto(live_server.url + reverse("lifecycle:promotion", args=[quay["open"].pk]))
    other.get_by_label("Comment", exact=True).fill("Not this week.")
    other.get_by_role("button", name="Reject").click()
    expect(other.get_by_role("status").filter(has_text="You rejected")).to_be_visible()
    expect(page.locator(f"#result-{quay['open'].pk}")).to_be_visible(timeout=20_000)
    page.close()
