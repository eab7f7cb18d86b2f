"""An approver with ten pending requests and no mouse: nine approved, one rejected, in at most 40 key presses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect, sync_playwright

from accounts.queries import system_user
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Slot
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from tests.e2e.chromium import ARGUMENTS, CHROMIUM, NEEDS_CHROMIUM
from tests.factories import dock

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]
PENDING: Final = 10
PRESSES_MAX: Final = 40
REASON: Final = "Base too old"


@pytest.fixture
def pending(transactional_db: None) -> list[PromotionRequest]:
    """Ten open requests for staging, of images that are in dev."""
    shop = dock.team("shop")
    asker = dock.user("shop-dev", "owner", of=shop)
    dock.user("kim", "approver", of=shop)
    dev, staging = (
        create_environment(shop, actor=system_user(), slug=slug, name=slug, prefix=slug, required_approvals=approvals)
        for slug, approvals in (("dev", 0), ("staging", 1))
    )
    made = []
    for number in range(PENDING):
        where = dock.repository(f"shop/part-{number}")
        image = dock.image(f"part {number}", layers=1, scanned_at=clock.now(), package_count=1)
        dock.push(where, image, "1.0", asker)
        Slot.objects.create(repository=where, environment=dev, image=image, tag="1.0", since=clock.now())
        made.append(services.request_promotion(where, image.digest, staging, actor=asker, reason="Weekly release."))
    return made


@pytest.fixture
def browser(pending: list[PromotionRequest], live_server: Any) -> Iterator[Browser]:
    """A browser; rows are made before it starts, since its event loop keeps Django from the database."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Keys:
    """The keyboard of a page, which counts what is pressed; a modifier counts as well."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.pressed = 0

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.pressed += key.count("+") + 1

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)
        self.pressed += len(text)


def test_ten_pending_are_decided_with_at_most_forty_key_presses(
    browser: Browser, live_server: Any, pending: list[PromotionRequest]
) -> None:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(live_server.url + "/accounts/sign-in/")
    page.fill("#id_login", "kim")
    page.fill("#id_password", "dock-side-pass")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "sign-in" not in url)
    page.goto(live_server.url + reverse("lifecycle:images"))
    keys, title = Keys(page), page.locator("#detail-title")
    keys.press("g", "i")
    for number in reversed(range(PENDING)):  # newest first
        expect(title).to_have_text(f"Promote shop/part-{number} 1.0 to staging")
        if number == 4:
            keys.press("r")
            expect(page.get_by_label("Comment", exact=True)).to_be_focused()
            keys.type(REASON)
            keys.press("Control+Enter")
            done = "You rejected"
        else:
            keys.press("a")
            done = "You approved"
        expect(page.get_by_role("status").filter(has_text=f"{done} {pending[number]}.")).to_be_visible()
    expect(page.get_by_text("No requests to vote on.")).to_be_visible()
    assert keys.pressed <= PRESSES_MAX
    for state, count in (("ready", PENDING - 1), ("rejected", 1), ("open", 0)):
        page.goto(f"{live_server.url}{reverse('lifecycle:promotions')}?state={state}")
        expect(page.locator("tr[data-row]")).to_have_count(count)
    page.goto(live_server.url + reverse("lifecycle:promotion", args=[pending[4].pk]))
    expect(page.locator("#votes").get_by_text(REASON)).to_be_visible()
    page.close()
