"""Notices, preferences and channels in a real browser: axe and the CSP in both themes and at both widths."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from accounts.models import User
from lifecycle.core import clock
from lifecycle.notices import channels
from lifecycle.notices.models import Channel, InboxItem, Message
from lifecycle.notices.preferences import mute
from tests.e2e.chromium import LOOKS, NEEDS_CHROMIUM, signed_in
from tests.factories import dock

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]
SHOTS = os.environ.get("SHOTS", "")  # a folder: pictures of every page for people to look at
TOPICS = ["promotion.asked", "promotion.failed"]


@pytest.fixture
def harbour(transactional_db: None, settings: Any) -> list[str]:
    """Pages of a reader who was told things, muted some, and has a channel that is on and one that is off."""
    settings.MAIL_IS_ON = True
    reader: User = dock.quay()["reader"]
    reader.email = "shop-dev@example.com"
    reader.save()
    assert InboxItem.objects.filter(person=reader).count() > 2
    mute("repository", "shop/api", clock.now() + timedelta(days=3), actor=reader)
    shop = dock.team("shop")
    on, _ = channels.create_channel(shop, "deployments", "webhook", "https://example.com/x", TOPICS, actor=reader)
    off, _ = channels.create_channel(shop, "chat", "webhook", "https://example.com/y", TOPICS, actor=reader)
    Channel.objects.filter(pk=off.pk).update(
        is_enabled=False, disabled_at=clock.now(), disabled_reason="The receiver answered 410: it wants no more events."
    )
    for number, state in enumerate(("sent", "failed", "retrying")):
        Message.objects.create(
            channel=on, key=f"{number}" * 32, state=state, due_at=clock.now(), attempts=number + 1, last_status=500,
            subject="PR-7: shop/api:2.14.1 to production", last_error="The receiver answered 500.",
        )  # fmt: skip
    return [
        "/notices/", "/notices/?show=unread", "/account/notices/", "/channels/", "/channels/new/",
        f"/channels/{on.pk}/", f"/channels/{off.pk}/", f"/channels/{off.pk}/delete/",
    ]  # fmt: skip


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_pages_pass_axe_and_the_csp(
    browser: Browser, harbour: list[str], live_server: Any, theme: str, width: int
) -> None:
    page = signed_in(browser, live_server.url, theme=theme, width=width)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    for number, address in enumerate(harbour):
        page.goto(live_server.url + address)
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/{number:02d}-{theme}-{width}.png", full_page=True)
        result = Axe().run(page)
        assert result.violations_count == 0, (address, result.generate_report())
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, (address, f"scrolls sideways by {wider} px")
    assert complaints == []


def unread(page: Page) -> int:
    """Return the number beside the bell."""
    text = page.locator(".bar-end a[href='/notices/'] b").all_inner_texts()
    return int(text[0].split()[0]) if text else 0


def test_bell_leads_to_the_notice_and_counts_down(browser: Browser, harbour: list[str], live_server: Any) -> None:
    page = signed_in(browser, live_server.url)
    before = unread(page)
    assert before > 2
    page.locator(".bar-end a[href='/notices/']").click()
    page.get_by_role("link", name="Unread", exact=True).click()
    page.locator("tr[data-row] button.link").first.click()
    page.wait_for_url("**/promotions/*/")
    expect(page.locator(".bar-end a[href='/notices/'] b")).to_contain_text(f"{before - 1}")
    page.goto(live_server.url + "/notices/")
    page.get_by_role("button", name="Mark all as read").click()
    expect(page.get_by_role("button", name="Mark all as read")).to_have_count(0)
    expect(page.locator(".bar-end a[href='/notices/'] b")).to_have_count(0)
